"""The filters of a search: `status>=500`, `features.AGEP>40`, `error_code is null`.

Read strictly: an unknown column or a value that its column cannot have is refused, never passed on. What a filter means
in SQL is `inference_condition` of migration 0008, which knows the same columns and operators.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal
from uuid import UUID

from services.router.tables.errors import FilterRefused

UUIDS = frozenset({"request_id", "shadow_of"})
TIMES = frozenset({"received_at"})
WHOLE = frozenset({"status", "version", "revision", "attempts", "input_tokens", "output_tokens"})
NUMBERS = frozenset({"latency_ms", "upstream_ms", "ttft_ms", "score", "cost_usd"})
TEXTS = frozenset({
    "asset", "digest", "arm", "unit", "prediction", "error_code", "trace_id", "requester", "protocol",
    "client_request_id",
})  # fmt: skip
JSON = frozenset({"tags", "features", "input", "output", "shap"})
COLUMNS = UUIDS | TIMES | WHOLE | NUMBERS | TEXTS | JSON

MOST_FILTERS = 10
MAX_FILTER = 500
_BIGINT = 2**63

Kind = Literal["text", "number"]

_FILTER = re.compile(
    r"""\s*(?P<column>[a-z_]+) (?P<path>(?:\.(?:[^\s."=!<>~^]+|"[^"]+"))*)
        \s*(?: (?P<null>is\s+(?:not\s+)?null) | (?P<op><=|>=|!=|=|<|>|~|\^)\s*(?P<value>.*?) )\s*""",
    re.VERBOSE | re.DOTALL,
)
_SEGMENT = re.compile(r'\.(?:"([^"]+)"|([^.]+))')


@dataclass(frozen=True, slots=True)
class Filter:
    """`value` in the spelling that Postgres reads; empty for `is null`. `path` only of JSON columns."""

    column: str
    op: str
    value: str = ""
    path: tuple[str, ...] = ()
    kind: Kind = "text"

    def to_json(self) -> dict[str, Any]:
        return {"column": self.column, "op": self.op, "value": self.value, "path": self.path, "kind": self.kind}


def read_filters(texts: Sequence[str]) -> tuple[Filter, ...]:
    """All must hold. Raises FilterRefused, which names the filter and what it takes."""
    if len(texts) > MOST_FILTERS:
        raise FilterRefused(f"A search takes at most {MOST_FILTERS} filters; these are {len(texts)}.")
    return tuple(read_filter(text) for text in texts)


def read_filter(text: str) -> Filter:
    """Raises FilterRefused."""
    if len(text) > MAX_FILTER or "\x00" in text:
        raise FilterRefused(f"A filter has at most {MAX_FILTER} characters and no NUL.")
    found = _FILTER.fullmatch(text)
    if found is None:
        raise FilterRefused(f"{text[:80]!r} is no filter; write it like status>=500, unit=ada or error_code is null.")
    column = found["column"]
    path = tuple(quoted or plain for quoted, plain in _SEGMENT.findall(found["path"]))
    if column not in COLUMNS:
        raise FilterRefused(f"There is no column {column[:60]!r}; there are {', '.join(sorted(COLUMNS))}.")
    if path and column not in JSON:
        raise FilterRefused(f"{column!r} is no JSON column, so nothing stands below it.")
    if found["null"] is not None:
        return Filter(column, " ".join(found["null"].split()), path=path)
    op, value = found["op"], found["value"]
    if op in ("~", "^"):
        return Filter(column, op, _unquoted(value), path)
    if column in JSON:
        return _of_json(column, path, op, value)
    return Filter(column, op, _checked(column, _unquoted(value)))


def _of_json(column: str, path: tuple[str, ...], op: str, value: str) -> Filter:
    """A number is compared as one, and what stands in double quotes as a text."""
    if not path:
        raise FilterRefused(f"Say which value of {column!r} is meant: {column}.<name>, or use ~ to look in all of it.")
    try:
        number = Decimal(value)
    except InvalidOperation:
        return Filter(column, op, _unquoted(value), path)
    if not number.is_finite() or abs(number.adjusted()) > 400:
        return Filter(column, op, value, path)
    return Filter(column, op, str(number), path, "number")


def _checked(column: str, value: str) -> str:
    """The value as Postgres reads it in this column. Raises FilterRefused."""
    try:
        if column in UUIDS:
            return str(UUID(value))
        if column in TIMES:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError
            return moment.isoformat()
        if column in WHOLE:
            if not -_BIGINT <= int(value) < _BIGINT:
                raise ValueError
            return str(int(value))
        if column in NUMBERS:
            number = float(value)
            if number != number:
                raise ValueError
            return repr(number) if abs(number) != float("inf") else value.strip()
    except (ValueError, OverflowError):
        raise FilterRefused(f"{value[:60]!r} is no value of {column}: it takes {_takes(column)}.") from None
    return value


def _takes(column: str) -> str:
    if column in UUIDS:
        return "a UUID"
    if column in TIMES:
        return "a time with its zone, like 2026-11-29T10:00:00Z"
    return "a whole number" if column in WHOLE else "a number"


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def holds(filters: Sequence[Filter], row: Mapping[str, Any]) -> bool:
    """Whether a row outside of any table passes all, as `inference_condition` has it; JSON columns are values."""
    return all(_holds(one, row) for one in filters)


def _holds(one: Filter, row: Mapping[str, Any]) -> bool:
    value = row.get(one.column)
    for segment in one.path:
        if isinstance(value, list) and segment.lstrip("-").isdecimal():
            value = value[int(segment)] if -len(value) <= int(segment) < len(value) else None
        else:
            value = value.get(segment) if isinstance(value, dict) else None
    if one.op in ("is null", "is not null"):
        return (value is None) == (one.op == "is null")
    if one.column in JSON and one.kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        value = None
    if value is None:
        return one.op == "!="
    if one.op == "~":
        return one.value.lower() in _text(value).lower()
    if one.op == "^":
        return _text(value).startswith(one.value)
    return _ORDER[one.op](*_comparable(one, value))


def _comparable(one: Filter, value: Any) -> tuple[Any, Any]:
    if one.kind == "number" or one.column in WHOLE | NUMBERS:
        return Decimal(str(value)), Decimal(one.value)
    if one.column in TIMES:
        return value, datetime.fromisoformat(one.value)
    return _text(value), one.value


def _text(value: Any) -> str:
    """As Postgres prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict | list) else str(value)


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
