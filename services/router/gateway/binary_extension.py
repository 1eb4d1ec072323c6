"""The binary tensor extension of the Open Inference Protocol over HTTP: JSON first, then tensors as raw bytes.

A request with it becomes the JSON that it could have been, which is what the row keeps and the model server is asked.
The answer is JSON's too, and becomes bytes where the client asked for bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.router.errors import TensorMalformed, UpstreamGarbageError
from services.router.gateway.tensors import AS_JSON, MOST_VALUES, SIZES, count_of, raw_of, values_of
from shared.errors import Invalid, Malformed, TooLarge

HEADER = b"inference-header-content-length"
MARK = b'"binary_data'
"""What every request that asks for it has in its JSON."""

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which outputs a client takes as bytes: those named, and of the others all or none."""

    others: bool = False
    named: Mapping[str, bool] = field(default_factory=dict)

    def has(self, name: Any) -> bool:
        return self.named.get(name, self.others) if isinstance(name, str) else False


def parted(body: bytes, length: bytes) -> tuple[bytes, bytes]:
    """The JSON of a body and the bytes behind it. Raises Malformed."""
    if not length.isdigit() or len(length) > 12 or not 0 < (size := int(length)) <= len(body):
        raise Malformed(
            f"Inference-Header-Content-Length is {length.decode('latin-1')[:40]!r}; it must be how many of the body's "
            f"bytes are JSON, from 1 to {len(body)}."
        )
    return body[:size], body[size:]


def filled(asked: JsonObject, binary: bytes) -> None:
    """Put the tensors' values in their places. Raises TensorMalformed, Invalid, TooLarge."""
    place, values, last = 0, 0, ""
    for tensor in asked["inputs"]:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise Invalid("Each of `inputs` is an object with name, shape, datatype and data.")
        parameters = tensor.get("parameters")
        if not isinstance(parameters, dict) or "binary_data_size" not in parameters:
            continue
        name, size = tensor["name"], parameters.pop("binary_data_size")
        if "data" in tensor:
            raise TensorMalformed(name, "it has `data` and `binary_data_size`; send one of them")
        if type(size) is not int or size < 0:
            raise TensorMalformed(name, "`binary_data_size` must be a whole number from 0")
        if size > len(binary) - place:
            raise TensorMalformed(name, f"`binary_data_size` is {size} and {len(binary) - place} bytes are left")
        if not parameters:
            del tensor["parameters"]
        count = count_of(name, tensor.get("datatype"), tensor.get("shape"))
        values += count
        if values > MOST_VALUES:
            raise TooLarge(f"The tensors have more than {MOST_VALUES} values; send fewer rows a request.")
        tensor["data"] = values_of(name, tensor["datatype"], count, binary[place : place + size])
        tensor["datatype"] = AS_JSON.get(tensor["datatype"], tensor["datatype"])
        place, last = place + size, name
    if place != len(binary):
        raise TensorMalformed(last or "none", f"{len(binary) - place} bytes follow it that are of no tensor")


def taken(asked: JsonObject) -> Wanted | None:
    """Take what the client says of binary outputs out of its request; None where it says nothing."""
    parameters, outputs = asked.get("parameters"), asked.get("outputs")
    found = False
    others = False
    if isinstance(parameters, dict) and "binary_data_output" in parameters:
        others, found = parameters.pop("binary_data_output") is True, True
        if not parameters:
            del asked["parameters"]
    named: dict[str, bool] = {}
    for output in outputs if isinstance(outputs, list) else ():
        own = output.get("parameters") if isinstance(output, dict) else None
        if isinstance(own, dict) and "binary_data" in own:
            named[str(output.get("name"))], found = own.pop("binary_data") is True, True
            if not own:
                del output["parameters"]
    return Wanted(others, named) if found else None


def written(answer: JsonObject, wanted: Wanted) -> tuple[bytes, bytes] | None:
    """The answer's JSON and the bytes behind it; None when no output is to be bytes. Raises UpstreamGarbageError."""
    outputs: list[Any] = []
    pieces: list[bytes] = []
    for tensor in answer.get("outputs") or ():
        if isinstance(tensor, dict) and wanted.has(tensor.get("name")) and "data" in tensor:
            piece = packed(tensor)
            parameters = {**(tensor.get("parameters") or {}), "binary_data_size": len(piece)}
            tensor = {**{key: value for key, value in tensor.items() if key != "data"}, "parameters": parameters}
            pieces.append(piece)
        outputs.append(tensor)
    return (orjson.dumps({**answer, "outputs": outputs}), b"".join(pieces)) if pieces else None


def packed(tensor: JsonObject) -> bytes:
    """An output's values as bytes. Raises UpstreamGarbageError naming it."""
    name, datatype = str(tensor.get("name"))[:100], tensor.get("datatype")
    if not isinstance(datatype, str) or (datatype not in SIZES and datatype != "BYTES"):
        raise UpstreamGarbageError(f"The model's output {name!r} has a datatype that is none of the protocol's.")
    try:
        return raw_of(datatype, tensor.get("data"))
    except ValueError as error:
        raise UpstreamGarbageError(
            f"The model's output {name!r} is not as its datatype {datatype} says: {error}."
        ) from None
