"""What a batch is: how its file is read, what each of its rows asks, and what becomes of the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from services.router.errors import BatchRefused, FieldRefused
from shared.errors import MintmarkError

MOST_CONCURRENCY = 64
CONVERSATIONS = ("/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
ID_FIELDS = ("custom_id", "id")
UNSENDABLE = re.compile(r"^[ \t]|[ \t]$|[\x00-\x08\x0a-\x1f\x7f]")
"""What no value of a header holds (RFC 9110, 5.5)."""
DIGEST = re.compile(r"(?:\S*[/:])?(sha256:[0-9a-f]{64})")


class Format(StrEnum):
    """How rows stand in a file."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class Shape(StrEnum):
    """What a row is: a request with its body, or the values of a model's inputs by name."""

    REQUESTS = "requests"
    FEATURES = "features"


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


class Spec(BaseModel):
    """How a file becomes requests, and their answers a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str
    format: Format
    shape: Shape
    output_format: Format
    id_field: str | None = None
    """Names each row in the output; by default `custom_id` or `id`, else its place in the file."""
    unit_field: str | None = None
    """Whom a row is about, which decides the version that answers; a path of names, `body.user`."""
    features: tuple[str, ...] | None = None
    """Which fields are the model's inputs; by default all but those two."""
    url: str | None = None
    """Where a row is asked that names no `url` of its own."""
    concurrency: int = Field(default=8, ge=1, le=MOST_CONCURRENCY)
    """Most rows asked at a time; after a crash, so many are asked a second time at the most."""


@dataclass(frozen=True, slots=True)
class Job:
    """A batch and how far it is."""

    id: UUID
    workspace: str
    group: str
    spec: Spec
    state: State
    cancel: bool
    who: str
    roles: tuple[str, ...]
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    next_at: datetime | None = None
    total: int | None = None
    recorded: int = 0
    failed: int = 0
    output: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One row as a request: the path and the body that the gateway is sent."""

    position: int
    id: str
    path: str
    body: bytes
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a row was answered. `status` is None for one that was not asked, since it is no request."""

    position: int
    id: str
    status: int | None
    request_id: str | None = None
    version: str | None = None
    body: Any = None
    code: str | None = None
    message: str | None = None

    @property
    def is_error(self) -> bool:
        return self.code is not None

    @staticmethod
    def refused(position: int, id: str, error: MintmarkError) -> Result:
        return Result(position, id, None, code=error.code, message=error.message)


def digest_of(address: str) -> str:
    """The digest of a file, by itself or as the end of its address. Raises BatchRefused."""
    found = DIGEST.fullmatch(address)
    if found is not None:
        return found[1]
    raise BatchRefused(
        f"`input` is {address[:100]!r}; it must be sha256:<64 hex digits>, or an address here that ends with that. "
        "Upload the file first: PUT /router/v1/batch-files/{digest}."
    )


def name_of(row: Mapping[str, Any], position: int, field: str | None) -> str:
    """The row's name in the output."""
    names = (field,) if field is not None else ID_FIELDS
    for name in names:
        value = at(row, name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)[:512]
    return str(position)


def item_of(row: Any, position: int, group: str, spec: Spec) -> Item:
    """The request that a row makes. Raises FieldRefused naming the field."""
    if not isinstance(row, dict):
        raise FieldRefused(f"row {position}", "must be an object")
    unit = at(row, spec.unit_field) if spec.unit_field is not None else None
    if spec.unit_field is not None and (isinstance(unit, bool) or not isinstance(unit, str | int) or unit == ""):
        raise FieldRefused(spec.unit_field, "must say whom the row is about, in a text or a whole number")
    if spec.unit_field is not None and isinstance(unit, str) and UNSENDABLE.search(unit):
        raise FieldRefused(spec.unit_field, "begins or ends with a blank, or has control characters in it")
    id = name_of(row, position, spec.id_field)
    infer = f"/v2/models/{group}/infer"
    if spec.shape is Shape.FEATURES:
        path, body = infer, {"id": id, "inputs": inputs_of(row, spec)}
    else:
        path, body = request_of(row, group, spec, infer)
    return Item(position, id, path, orjson.dumps(body), str(unit) if unit is not None else None)


def request_of(row: dict[str, Any], group: str, spec: Spec, infer: str) -> tuple[str, dict[str, Any]]:
    """A row that is a request, as in OpenAI's batches: `{"custom_id", "method", "url", "body"}`."""
    body = row.get("body")
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise FieldRefused("body", f"is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise FieldRefused("body", "must be the request, an object")
    if row.get("method") not in (None, "POST"):
        raise FieldRefused("method", "must be POST")
    path = row.get("url") or spec.url or (infer if "inputs" in body else CONVERSATIONS[0])
    if path == infer:
        return path, body
    if path not in CONVERSATIONS:
        raise FieldRefused("url", f"must be one of {', '.join((*CONVERSATIONS, infer))}")
    if body.get("model", group) != group:
        raise FieldRefused("body.model", f"must be the group, {group}")
    if body.get("stream"):
        raise FieldRefused("body.stream", "must be false: a batch takes whole answers")
    return path, {**body, "model": group}


def inputs_of(row: dict[str, Any], spec: Spec) -> list[dict[str, Any]]:
    """One tensor of shape [1, 1] a feature."""
    names = spec.features
    if names is None:
        given = {spec.id_field, spec.unit_field, *(ID_FIELDS if spec.id_field is None else ())}
        names = tuple(name for name in row if name not in given)
    if not names:
        raise FieldRefused("row", "has no feature")
    return [
        {"name": name, "datatype": datatype_of(name, value), "shape": [1, 1], "data": [value]}
        for name, value in ((name, row.get(name)) for name in names)
    ]


def datatype_of(name: str, value: Any) -> str:
    """The tensor datatype of a value; nothing known is a missing number. Raises FieldRefused."""
    match value:
        case bool():
            return "BOOL"
        case int():
            return "INT64"
        case float() | None:
            return "FP64"
        case str():
            return "BYTES"
    raise FieldRefused(name, "must be a number, a text, true, false or null")


def at(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path of names, `body.user`; a name with dots in it is found as it stands. None without one."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def outputs_of(body: Any) -> dict[str, Any] | None:
    """`{"probability": 0.75}`: the outputs of an answer of the Open Inference Protocol, single values bare."""
    outputs = body.get("outputs") if isinstance(body, dict) else None
    if not isinstance(outputs, list):
        return None
    found: dict[str, Any] = {}
    for tensor in outputs:
        if isinstance(tensor, dict) and isinstance(tensor.get("name"), str):
            data = tensor.get("data")
            found[tensor["name"]] = data[0] if isinstance(data, list) and len(data) == 1 else data
    return found


def line_of(result: Result, shape: Shape) -> dict[str, Any]:
    """A row of the output."""
    error = {"code": result.code, "message": result.message} if result.is_error else None
    if shape is Shape.FEATURES:
        return {
            "id": result.id, "status": result.status, "request_id": result.request_id, "version": result.version,
            "outputs": None if result.is_error else outputs_of(result.body), "error": error,
        }  # fmt: skip
    asked = result.status is not None
    response = {"status_code": result.status, "request_id": result.request_id, "body": result.body} if asked else None
    return {
        "id": result.request_id,
        "custom_id": result.id,
        "version": result.version,
        "response": response,
        "error": error,
    }
