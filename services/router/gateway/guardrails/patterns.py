"""Regular expressions of the operator's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from services.router.gateway.guardrails.findings import NOTHING, Finding, Span

MOST_SPANS = 10_000


@lru_cache(maxsize=512)
def _compiled(patterns: tuple[str, ...], ignore_case: bool) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(one, re.IGNORECASE if ignore_case else 0) for one in patterns)


def found(texts: Sequence[str], label: str, patterns: tuple[str, ...], ignore_case: bool) -> Finding:
    """Every match in every text."""
    spans = [
        Span(number, match.start(), match.end(), label)
        for number, text in enumerate(texts)
        for pattern in _compiled(patterns, ignore_case)
        for match in pattern.finditer(text)
    ][:MOST_SPANS]
    return Finding(True, f"{len(spans)} matches of {label}", tuple(spans)) if spans else NOTHING
