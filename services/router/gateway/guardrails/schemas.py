"""Answers held to a JSON Schema, compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jsonschema
import orjson

from services.router.gateway.guardrails.findings import NOTHING, Finding


@lru_cache(maxsize=256)
def _compiled(schema: bytes) -> Any:
    parsed = orjson.loads(schema)
    return jsonschema.validators.validator_for(parsed)(parsed)


def found(texts: Sequence[str], schema: bytes) -> Finding:
    """Trips on the first text that is not JSON or does not fit; says where and by which keyword, and quotes nothing."""
    validator = _compiled(schema)
    for text in texts:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return Finding(True, "the answer is not JSON")
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
        if error is not None:
            return Finding(True, f"the answer does not fit the schema at {error.json_path[:100]}: {error.validator}")
    return NOTHING
