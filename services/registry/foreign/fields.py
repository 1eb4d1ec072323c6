"""The fields of ours that a foreign value may become, and how each is read. Pure.

`name`, `kind`, `task`, `licence`, …, `metrics.<name>`, `parameters.<name>`, `inputs.<name>`, `outputs.<name>`,
`tags.<key>`, `charts.<name>`, `base.<n>`. The same reading serves rules, mappings, corrections and a model's answers,
so that a value is always one of the document's, or one that a person has typed.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from services.registry.foreign import figures, vocabulary
from services.registry.foreign.charts import Chart, recognise, table
from services.registry.licences import expressions
from shared.errors import Invalid
from shared.events.base import KINDS, TENSOR_DATATYPES, Tensor
from shared.events.names import addressable, name_of

By = Literal["rule", "mapping", "model", "person"]
SINGLE = (
    "kind", "name", "task", "description", "licence", "run_id", "commit", "intent_id", "artefact.digest",
    "artefact.format", "artefact.uri",
)  # fmt: skip
GROUPS = ("metrics", "parameters", "inputs", "outputs", "tags", "charts", "base")
MOST_FIELDS = 5_000
DATATYPES = {
    **dict.fromkeys(
        ("double", "float64", "fp64", "float", "numeric", "number", "continuous", "decimal", "real"), "FP64"
    ),
    **dict.fromkeys(("float32", "fp32", "single"), "FP32"),
    **dict.fromkeys(("float16", "fp16", "half", "bfloat16"), "FP16"),
    **dict.fromkeys(("int64", "long", "int", "integer", "bigint", "count"), "INT64"),
    **dict.fromkeys(("int32",), "INT32"),
    **dict.fromkeys(("int16", "short"), "INT16"),
    **dict.fromkeys(("int8", "byte"), "INT8"),
    **dict.fromkeys(("uint8",), "UINT8"),
    **dict.fromkeys(("bool", "boolean", "binary_flag", "flag"), "BOOL"),
    **dict.fromkeys(
        ("string", "str", "text", "object", "category", "categorical", "enum", "varchar", "date", "datetime", "binary"),
        "BYTES",
    ),
}


class Field(BaseModel):
    """One field of ours: what it will hold, where that stands in the document, why, and how sure that is."""

    model_config = ConfigDict(frozen=True)

    field: str
    value: Any
    unit: str = ""
    source: str | None = None
    reason: str
    confidence: float
    by: By = "rule"


class Unreadable(ValueError):
    """The value cannot be what the field holds."""


def check_name(field: str) -> None:
    """Raises Invalid for a name that no field has."""
    group, _, rest = field.partition(".")
    if field in SINGLE or (group in GROUPS and 0 < len(rest) <= 200 and "\x00" not in rest):
        return
    raise Invalid(
        f"{field[:100]!r} is no field; take {', '.join(SINGLE)} or {', '.join(f'{one}.<name>' for one in GROUPS)}"
    )


def make(field: str, value: Any, source: str | None, reason: str, confidence: float, by: By = "rule") -> Field:
    """A field with the value as it will be kept. Raises Unreadable."""
    group, _, rest = field.partition(".")
    read = _READERS.get(group if group in GROUPS else field, _text)
    found, unit, said, name = read(rest, value)
    sure = confidence if not said.endswith("?") else min(confidence, 0.7)
    why = f"{reason}; {said.rstrip('?')}" if said else reason
    return Field(
        field=f"{group}.{name}" if group in GROUPS else field,
        value=found, unit=unit, source=source, reason=why, confidence=sure, by=by,
    )  # fmt: skip


Read = tuple[Any, str, str, str]
"""The value, its unit, what was done to it, and the name that it goes by in its group."""


def _text(name: str, value: Any) -> Read:
    return _line(value, 10_000), "", "", name


def _line(value: Any, most: int) -> str:
    """Any scalar or list of them as one text. Raises Unreadable."""
    if isinstance(value, list) and value and all(isinstance(item, str | int | float) for item in value):
        value = ", ".join(str(item) for item in value)
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise Unreadable("it is no text")
    text = str(value).strip()
    if not text or len(text) > most:
        raise Unreadable("it is empty" if not text else f"it is longer than {most} characters")
    return text


def _metric(name: str, value: Any) -> Read:
    found = figures.figure(name, value)
    if found is None:
        raise Unreadable("it is no number")
    return found.value, found.unit, found.said + ("" if found.sure else "?"), found.name


def _parameter(name: str, value: Any) -> Read:
    if value is None or len(json.dumps(value)) > 4_000:
        raise Unreadable("it is empty or too long for a parameter")
    return value, "", "", name


def _kind(name: str, value: Any) -> Read:
    if value not in KINDS or value in ("dataset", "prompt", "bundle"):
        raise Unreadable("an imported asset is a model, vendor-model, retriever, reranker or embedder")
    return value, "", "", name


def _name(name: str, value: Any) -> Read:
    try:
        text = addressable(_line(value, 500))
    except ValueError as error:
        raise Unreadable(str(error)) from None
    ours = name_of(text)
    return text, "", "" if ours == text else f"its URN says {ours}", name


def _task(name: str, value: Any) -> Read:
    text = _line(value, 200)
    known = vocabulary.task(text)
    if known is None:
        return (
            vocabulary.snake(text)[:60].replace("_", "-") or "other",
            "",
            f"{text[:60]!r} is no task that is known?",
            name,
        )
    return known, "", "" if known == text else f"{text[:60]!r} is {known}", name


def _licence(name: str, value: Any) -> Read:
    text = _line(value, 200)
    reading = expressions.read(text)
    if reading.expression is None:
        near = f", perhaps {' or '.join(reading.near)}" if reading.near else ""
        return text, "", f"kept as it is, since no licence is called so{near}?", name
    return reading.expression, "", "" if reading.expression == text else f"{text[:60]!r} is {reading.expression}", name


def _datatype(name: str, value: Any) -> Read:
    if isinstance(value, str) and value.upper() in TENSOR_DATATYPES:
        return value.upper(), "", "", name
    known = DATATYPES.get(vocabulary.snake(value)) if isinstance(value, str) else None
    if known is None:
        return "FP64", "", "its type is not said, so a number is assumed?", name
    return known, "", f"{value} is {known}", name


def _tag(name: str, value: Any) -> Read:
    if name == "created_at":
        return _moment(value), "", "", name
    return _line(value, 2_000), "", "", name


def _moment(value: Any) -> str:
    """A time as ISO 8601 in UTC where it can be told; else as it is written."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and 1e8 < value < 1e14:
            seconds = value / 1000 if value > 1e11 else value
            return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
        read = datetime.fromisoformat(str(value).strip().replace(" UTC", "+00:00"))
        read = read if read.tzinfo else read.replace(tzinfo=UTC)
        return read.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return _line(value, 200)


def _chart(name: str, value: Any) -> Read:
    found = (
        Chart.model_validate(value)
        if isinstance(value, dict) and "type" in value
        else recognise(name, value) or table(value)
    )
    if found is None:
        raise Unreadable("it is no curve, matrix or list of importances")
    return found.model_dump(mode="json"), "", "", name


def _base(name: str, value: Any) -> Read:
    text = _line(value, 300)
    if re.fullmatch(r"mm:[a-z-]+/[a-z0-9][a-z0-9._-]*", text):
        return text, "", "", name
    return f"mm:model/{name_of(text)}", "", f"{text[:80]!r} by the name that it has here", name


def _digest(name: str, value: Any) -> Read:
    text = str(value).lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise Unreadable("it is no SHA-256")
    return f"sha256:{text}", "", "", name


_READERS = {
    "kind": _kind, "name": _name, "task": _task, "licence": _licence, "artefact.digest": _digest,
    "metrics": _metric, "parameters": _parameter, "inputs": _datatype, "outputs": _datatype, "tags": _tag,
    "charts": _chart, "base": _base,
}  # fmt: skip


def tensor(name: str, datatype: str) -> Tensor:
    return Tensor.model_validate({"name": name, "datatype": datatype})
