"""A request's row: what the group's inference table keeps of it, in the order of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from services.router.domain import label_text

COLUMNS: tuple[tuple[str, str], ...] = (
    ("request_id", "uuid"),
    ("workspace", "text"),
    ("received_at", "timestamptz"),
    ("unit", "text"),
    ("asset", "text"),
    ("version", "int4"),
    ("digest", "text"),
    ("status", "int2"),
    ("error_code", "text"),
    ("input", "jsonb"),
    ("output", "jsonb"),
    ("shap", "jsonb"),
    ("score", "float8"),
    ("prediction", "text"),
    ("latency_ms", "float8"),
    ("upstream_ms", "float8"),
    ("trace_id", "text"),
    ("revision", "int8"),
)

Row = tuple[Any, ...]
"""One value a column of COLUMNS; JSON columns as text."""

SCORE_TENSORS = ("probability", "score", "value")
LABEL_TENSORS = ("label", "prediction", "class")
MAX_UNIT_CHARACTERS = 256


def insert_statement(table: str) -> str:
    """One INSERT for any number of rows, a column an array: `table` is a name by `domain.log_table`.

    Not COPY: Postgres refuses COPY FROM into a table with row-level security.
    """
    names = ", ".join(name for name, _ in COLUMNS)
    arrays = ", ".join(f"${position}::{kind}[]" for position, (_, kind) in enumerate(COLUMNS, start=1))
    return f'INSERT INTO "{table}" ({names}) SELECT * FROM unnest({arrays})'


class Reading:
    """What a model's answer says: output without SHAP, SHAP apart, and the first row's score and label."""

    __slots__ = ("output", "prediction", "score", "shap")

    def __init__(self, answer: dict[str, Any], features: Sequence[str] = ()) -> None:
        """`answer` is a parsed Open Inference Protocol response, `features` names the model's inputs in their order.

        Tensors of unknown names are kept and not read.
        """
        self.shap: str | None = None
        self.score: float | None = None
        self.prediction: str | None = None
        outputs = answer.get("outputs")
        tensors = [tensor for tensor in outputs if isinstance(tensor, dict)] if isinstance(outputs, list) else []
        kept, shap = [], {}
        for tensor in tensors:
            name = tensor.get("name")
            if isinstance(name, str) and name.startswith("shap_"):
                shap[name] = tensor
                continue
            kept.append(tensor)
            if name in SCORE_TENSORS and self.score is None:
                self.score = _first_score(tensor)
            elif name in LABEL_TENSORS and self.prediction is None:
                self.prediction = _first_label(tensor)
        if shap:
            answer = {**answer, "outputs": kept}
            self.shap = orjson.dumps(_shap(shap, features)).decode()
        self.output: str = orjson.dumps(answer).decode()


def _first_score(tensor: dict[str, Any]) -> float | None:
    """The positive class's probability of the first row: shapes [n], [n, 1] and [n, 2]; None for more classes."""
    data, shape = tensor.get("data"), tensor.get("shape")
    if not isinstance(data, list) or not data:
        return None
    if isinstance(data[0], list):
        first = data[0]
    else:
        width = shape[1] if isinstance(shape, list) and len(shape) == 2 and isinstance(shape[1], int) else 1
        first = data[:width]
    return float(first[-1]) if 1 <= len(first) <= 2 and isinstance(first[-1], int | float) else None


def _first_label(tensor: dict[str, Any]) -> str | None:
    value = tensor.get("data")
    while isinstance(value, list) and value:
        value = value[0]
    return label_text(value) if isinstance(value, bool | int | float | str) else None


def _shap(tensors: dict[str, dict[str, Any]], features: Sequence[str]) -> dict[str, Any]:
    """`{"base": [n], "values": [[n x features]], "features": [names]}`, from flat or nested tensor data.

    base + the sum of a row's values = the answer's `raw_score`. With several classes both have one more dimension,
    and values stay as they were sent.
    """
    values = tensors.get("shap_values", {})
    return {
        "base": tensors.get("shap_base", {}).get("data") or [],
        "values": _rows(values.get("data") or [], values.get("shape")),
        "features": list(features),
    }


def _rows(data: Any, shape: Any) -> Any:
    """Flat data of shape [n, width] as n lists; everything else as it is."""
    if not isinstance(data, list) or not isinstance(shape, list) or len(shape) != 2:
        return data
    width = shape[1]
    if not data or isinstance(data[0], list) or not isinstance(width, int) or width < 1:
        return data
    return [data[start : start + width] for start in range(0, len(data), width)]
