"""A request's row as the bytes that Postgres takes: one tuple of the binary COPY format, rendered once, by the gateway.

The columns are those of the group's inference table, in their order; migrations/0004 documents each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from typing import Any

import orjson

from services.router.domain import label_text
from services.router.errors import FieldRefused
from shared.events.base import Event

COLUMNS: tuple[tuple[str, str], ...] = (
    ("request_id", "uuid"),
    ("received_at", "timestamptz"),
    ("status", "int2"),
    ("latency_ms", "float8"),
    ("revision", "int8"),
    ("workspace", "text"),
    ("asset", "text"),
    ("version", "int4"),
    ("digest", "text"),
    ("arm", "text"),
    ("unit", "text"),
    ("score", "float8"),
    ("prediction", "text"),
    ("error_code", "text"),
    ("trace_id", "text"),
    ("requester", "text"),
    ("protocol", "text"),
    ("upstream_ms", "float8"),
    ("ttft_ms", "float8"),
    ("attempts", "int2"),
    ("input_tokens", "int4"),
    ("output_tokens", "int4"),
    ("cost_usd", "numeric"),
    ("client_request_id", "text"),
    ("shadow_of", "uuid"),
    ("tags", "jsonb"),
    ("features", "jsonb"),
    ("input", "jsonb"),
    ("output", "jsonb"),
    ("shap", "jsonb"),
)
COLUMN_NAMES = tuple(name for name, _ in COLUMNS)
JSON_COLUMNS = frozenset(name for name, kind in COLUMNS if kind == "jsonb")

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"

SCORE_TENSORS = ("probability", "score", "value")
LABEL_TENSORS = ("label", "prediction", "class")
MAX_UNIT_CHARACTERS = 256
MAX_TAGS_BYTES = 2048
NUMBER = (int, float)
LABEL = (int, float, str)
# Tuples, since `int | float` is made anew at every call and then asked slowly: 6 us of a request's 60.
EPOCH_S = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
"""Where Postgres counts its microseconds from."""

# The number of columns, then request_id, received_at, status, latency_ms and revision, each behind its length.
HEAD = Struct(">hi16siqihidiq")
NULL = b"\xff\xff\xff\xff"
_LENGTH = Struct(">i")
_DOUBLE = Struct(">id")
_INT4 = Struct(">ii")
_INT2 = Struct(">ih")
_NUMERIC = Struct(">hhHh")


def served_by(urn: str | None, version: int | None, digest: str | None, arm: str | None) -> bytes:
    """The columns that are the same in every row of one version of a group: asset, version, digest, arm."""
    return text(urn) + int4(version) + text(digest) + text(arm)


SAID = b"\xff\xfe"
"""What stands in a payload where a row has its number of columns, when it is no row but an event to be said."""


def said(address: bytes, event: Event) -> bytes:
    """An event as its spool takes it: it is said by the shipper, exactly once, as rows are."""
    return address + SAID + orjson.dumps([event.topic.name, event.type(), event.key, event.model_dump(mode="json")])


def head(request_id: bytes, received_at_s: float, status: int, latency_ms: float, revision: int) -> bytes:
    """The columns that are never null; `received_at_s` is Unix time."""
    microseconds = int((received_at_s - EPOCH_S) * 1e6)
    return HEAD.pack(len(COLUMNS), 16, request_id, 8, microseconds, 2, status, 8, latency_ms, 8, revision)


def asked_by(requester: str | None, protocol: str) -> bytes:
    """The columns that are the same in every row of one caller: requester, protocol."""
    return text(requester) + text(protocol)


def rest(
    unit: str,
    trace_id: str,
    asked_by: bytes,
    answer: Answer,
    *,
    error_code: str | None,
    upstream_ms: float | None,
    ttft_ms: float | None,
    attempts: int,
    client_request_id: str | None,
    features: bytes | None,
    input: bytes | None,
    shadow_of: bytes | None = None,
    tags: bytes | None = None,
) -> bytes:
    """The columns from `unit` on. Written out, as a call a column costs as much as all the rest of a row."""
    name, trace = unit.encode("utf-8", "replace"), trace_id.encode()
    score, output, shap = answer.score, answer.output, answer.shap
    return b"".join(
        (
            _LENGTH.pack(len(name)),
            name,
            NULL if score is None else _DOUBLE.pack(8, score),
            NULL if answer.prediction is None else text(answer.prediction),
            NULL if error_code is None else text(error_code),
            _LENGTH.pack(len(trace)),
            trace,
            asked_by,
            NULL if upstream_ms is None else _DOUBLE.pack(8, upstream_ms),
            NULL if ttft_ms is None else _DOUBLE.pack(8, ttft_ms),
            _INT2.pack(2, attempts),
            NULL if answer.input_tokens is None else int4(answer.input_tokens),
            NULL if answer.output_tokens is None else int4(answer.output_tokens),
            NULL if answer.cost_usd is None else numeric(answer.cost_usd),
            NULL if client_request_id is None else text(client_request_id),
            NULL if shadow_of is None else raw(shadow_of),
            NULL if tags is None else jsonb(tags),
            NULL if features is None else jsonb(features),
            NULL if input is None else _LENGTH.pack(len(input) + 1),
            b"" if input is None else b"\x01",
            input or b"",
            NULL if output is None else _LENGTH.pack(len(output) + 1),
            b"" if output is None else b"\x01",
            output or b"",
            NULL if shap is None else jsonb(shap),
        )
    )


@dataclass(slots=True)
class Answer:
    """What the client gets, and what its row keeps of it. `headers` are whole lines; JSON columns are UTF-8 text."""

    status: int
    headers: bytes = b""
    body: bytes = b""
    output: bytes | None = None
    shap: bytes | None = None
    score: float | None = None
    prediction: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None

    def instead_of(self, kept_back: Answer) -> Answer:
        """The same, with what an answer took that a guard keeps back: it was paid for."""
        self.input_tokens, self.output_tokens = kept_back.input_tokens, kept_back.output_tokens
        return self


def text(value: str | None) -> bytes:
    if value is None:
        return NULL
    encoded = value.encode("utf-8", "replace")
    return _LENGTH.pack(len(encoded)) + encoded


def raw(value: bytes | None) -> bytes:
    return NULL if value is None else _LENGTH.pack(len(value)) + value


def jsonb(value: bytes | None) -> bytes:
    return NULL if value is None else b"%b\x01%b" % (_LENGTH.pack(len(value) + 1), value)


def int4(value: int | None) -> bytes:
    return NULL if value is None else _INT4.pack(4, value)


def numeric(value: Decimal | None) -> bytes:
    """A decimal as Postgres' numeric: groups of four digits, the first one's weight, digits after the point."""
    if value is None:
        return NULL
    sign, digits, exponent = value.normalize().as_tuple()
    assert isinstance(exponent, int), "neither NaN nor infinity is money"
    after = max(0, -exponent)
    padding = -after % 4
    number = int("".join(map(str, digits))) * 10 ** (max(0, exponent) + padding)
    groups: list[int] = []
    while number:
        number, group = divmod(number, 10_000)
        groups.insert(0, group)
    weight = len(groups) - 1 - (after + padding) // 4 if groups else 0
    body = _NUMERIC.pack(len(groups), weight, 0x4000 if sign else 0, after) + Struct(f">{len(groups)}H").pack(*groups)
    return raw(body)


def number(body: bytes) -> Decimal:
    """A decimal from the body of Postgres' numeric, as `numeric` makes it."""
    count, weight, sign, _ = _NUMERIC.unpack_from(body)
    value = Decimal(0)
    for place, group in enumerate(Struct(f">{count}H").unpack_from(body, _NUMERIC.size)):
        value += Decimal(group).scaleb(4 * (weight - place))
    return -value if sign == 0x4000 else value


def fields(row: memoryview) -> list[memoryview | None]:
    """The columns of a tuple, in their order; None for NULL."""
    found: list[memoryview | None] = []
    place = 2
    for _ in COLUMNS:
        (length,) = _LENGTH.unpack_from(row, place)
        place += 4
        if length < 0:
            found.append(None)
        else:
            found.append(row[place : place + length])
            place += length
    return found


def joined(columns: Sequence[memoryview | bytes | None]) -> bytes:
    """The tuple of these columns."""
    count = len(columns).to_bytes(2, "big")
    return count + b"".join(NULL if one is None else _LENGTH.pack(len(one)) + bytes(one) for one in columns)


NOBODY = served_by(None, None, None, None)
"""Of a request that reached no version."""


class Reading:
    """What a model's answer says: output without SHAP, SHAP apart, and the first row's score and label."""

    __slots__ = ("output", "prediction", "score", "shap")

    def __init__(self, answer: dict[str, Any], features: Sequence[str] = (), body: bytes | None = None) -> None:
        """`answer` is a parsed Open Inference Protocol response, `features` names the model's inputs in their order.

        Tensors of unknown names are kept and not read. `body` is the answer as it came, where it is to be kept so.
        """
        self.shap: bytes | None = None
        self.score: float | None = None
        self.prediction: str | None = None
        outputs = answer.get("outputs")
        kept: list[dict[str, Any]] = []
        shap: dict[str, dict[str, Any]] = {}
        for tensor in outputs if isinstance(outputs, list) else ():
            if not isinstance(tensor, dict):
                continue
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
            answer, body = {**answer, "outputs": kept}, None
            self.shap = orjson.dumps(_shap(shap, features))
        self.output: bytes = orjson.dumps(answer) if body is None else body


def tags_of(header: bytes) -> dict[str, Any]:
    """What a client has to say for its row: `x-mintmark-tags: {"campaign": "spring"}`. Raises FieldRefused."""
    try:
        found = orjson.loads(header)
    except orjson.JSONDecodeError:
        found = None
    fits = len(header) <= MAX_TAGS_BYTES and b"\\u0000" not in header
    if not isinstance(found, dict) or not fits or not all(map(_is_plain, found.values())):
        raise FieldRefused(
            "x-mintmark-tags", f"must be a JSON object of plain values, of {MAX_TAGS_BYTES} bytes at the most"
        )
    return found


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def features_of(inputs: list[Any], names: frozenset[str]) -> bytes | None:
    """`{"AGEP": 42.0}`: the first row's value of each of the model's own inputs that was sent; None without any."""
    found: dict[str, Any] = {}
    for tensor in inputs:
        if isinstance(tensor, dict) and (name := tensor.get("name")) in names:
            value = tensor.get("data")
            while isinstance(value, list):
                value = value[0] if value else None
            found[name] = value
    return orjson.dumps(found) if found else None


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
    return float(first[-1]) if 1 <= len(first) <= 2 and isinstance(first[-1], NUMBER) else None


def _first_label(tensor: dict[str, Any]) -> str | None:
    value = tensor.get("data")
    while isinstance(value, list) and value:
        value = value[0]
    return label_text(value) if isinstance(value, LABEL) else None


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
