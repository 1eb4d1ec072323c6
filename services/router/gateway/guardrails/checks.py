"""Which function looks for what: one entry a kind of guard. Pure, and the only thing that a guard's process does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from services.router.gateway.guardrails import lexical, patterns
from services.router.gateway.guardrails.findings import Finding

Check = Callable[[Sequence[str], dict[str, Any]], Finding]
"""(texts, the guard's parameters as JSON)."""


def _regex(texts: Sequence[str], asked: dict[str, Any]) -> Finding:
    return patterns.found(texts, asked["label"], tuple(asked["patterns"]), asked["ignore_case"])


def _pii(texts: Sequence[str], asked: dict[str, Any]) -> Finding:
    from services.router.gateway.guardrails import pii  # what it stands on takes seconds to import

    return pii.found(texts, tuple(asked["entities"]), tuple(asked["regions"]), asked["min_score"])


def _toxicity(texts: Sequence[str], asked: dict[str, Any]) -> Finding:
    return lexical.toxicity(tuple(asked["terms"]))(texts, asked["threshold"])


def _prompt_injection(texts: Sequence[str], asked: dict[str, Any]) -> Finding:
    return lexical.prompt_injection()(texts, asked["threshold"])


def _json_schema(texts: Sequence[str], asked: dict[str, Any]) -> Finding:
    from services.router.gateway.guardrails import schemas  # jsonschema is large, and the gateway itself never looks

    return schemas.found(texts, asked["schema"].encode())


CHECKS: dict[str, Check] = {
    "regex": _regex,
    "pii": _pii,
    "toxicity": _toxicity,
    "prompt_injection": _prompt_injection,
    "json_schema": _json_schema,
}
