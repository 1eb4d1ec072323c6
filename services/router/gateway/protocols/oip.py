"""The Open Inference Protocol's HTTP face: `POST /v2/models/{group}/infer` and `…/versions/{version}/infer`.

JSON tensors. The binary extension is taken as far as its JSON header goes, and passes through as it came.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import orjson

from services.router.errors import FieldRefused
from services.router.gateway.conversation import JsonObject
from services.router.gateway.protocols.base import Asked
from services.router.gateway.protocols.reading import parse
from services.router.gateway.tensors import MOST_DIMENSIONS
from shared.errors import Malformed, MintmarkError

DATATYPES = {
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64",
    "BYTES",
}  # fmt: skip
PREFIX = "/v2/models/"


class OpenInference:
    """See base.ClientProtocol. The group's name stands in the path and not in the body."""

    name = "oip"

    def open(self, body: bytes, path: str) -> Asked:
        return self.opened(body, path, None)

    def opened(self, body: bytes, path: str, json_bytes: int | None) -> Asked:
        """`json_bytes` is the request's `Inference-Header-Content-Length`: how much of the body is JSON.

        Raises Malformed, FieldRefused.
        """
        if json_bytes is not None and not 0 < json_bytes <= len(body):
            raise Malformed("Inference-Header-Content-Length does not lie within the body.")
        value = parse(body if json_bytes is None else body[:json_bytes])
        inputs = value.get("inputs")
        if not isinstance(inputs, list) or not inputs:
            raise FieldRefused("inputs", "must be a list of at least one tensor")
        return Asked(self, body, value, group_of(path), stream=False)

    def error(self, error: MintmarkError, request_id: str) -> bytes:
        return orjson.dumps({"error": error.message, "code": error.code, "request_id": request_id})


def group_of(path: str) -> str:
    """`/v2/models/live/versions/3/infer` -> `live`; empty if there is none."""
    return path.removeprefix(PREFIX).partition("/")[0] if path.startswith(PREFIX) else ""


def check_tensors(value: JsonObject) -> None:
    """Refuse tensors that contradict themselves: `inputs[2].shape` says six values, its data has five.

    Raises FieldRefused naming the tensor. Tensors in binary or shared memory are only looked at as far as their name.
    """
    names: set[str] = set()
    for position, tensor in enumerate(value["inputs"]):
        where = f"inputs[{position}]"
        if not isinstance(tensor, dict):
            raise FieldRefused(where, "must be an object with name, shape, datatype and data")
        name = tensor.get("name")
        if not isinstance(name, str) or not name:
            raise FieldRefused(f"{where}.name", "must be the name of a tensor")
        if name in names:
            raise FieldRefused(f"{where}.name", f"is {name!r} a second time")
        names.add(name)
        _check_tensor(tensor, f"{where} ({name})")


def _check_tensor(tensor: JsonObject, where: str) -> None:
    shape, datatype = tensor.get("shape"), tensor.get("datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise FieldRefused(f"{where}.shape", "must be a list of whole numbers")
    if len(shape) > MOST_DIMENSIONS:
        raise FieldRefused(f"{where}.shape", f"has {len(shape)} dimensions; it may have {MOST_DIMENSIONS}")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise FieldRefused(f"{where}.datatype", f"must be one of {', '.join(sorted(DATATYPES))}")
    parameters = tensor.get("parameters")
    if isinstance(parameters, dict) and ("binary_data_size" in parameters or "shared_memory_region" in parameters):
        return
    data = tensor.get("data")
    if not isinstance(data, list):
        raise FieldRefused(f"{where}.data", "must be a list")
    found = _count(data)
    if found != math.prod(shape):
        raise FieldRefused(f"{where}.data", f"has {found} values where its shape {shape} has {math.prod(shape)}")
    kinds = _kinds(datatype)
    if wrong := {type(item) for item in _flat(data)} - kinds:
        sent = ", ".join(sorted(kind.__name__ for kind in wrong))
        raise FieldRefused(f"{where}.data", f"holds {sent} where its datatype is {datatype}")


def _kinds(datatype: str) -> set[type]:
    match datatype:
        case "BYTES":
            return {str}
        case "BOOL":
            return {bool}
        case "FP16" | "BF16" | "FP32" | "FP64":
            return {int, float, type(None)}
        case _:
            return {int, type(None)}


def _flat(data: list[Any]) -> list[Any]:
    while data and isinstance(data[0], list):
        if not all(isinstance(item, list) for item in data):
            break
        data = list(chain.from_iterable(data))
    return data


def _count(data: list[Any]) -> int:
    return len(_flat(data))
