"""ModelInfer as a translator: a message in and out for the client, JSON for the row and the model server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import orjson

from services.router.errors import TensorMalformed, UpstreamGarbageError, VersionPinned
from services.router.gateway.binary_extension import packed
from services.router.gateway.grpc_inference.messages import InferParameter, ModelInferRequest, ModelInferResponse
from services.router.gateway.http_server import Request
from services.router.gateway.oip import OpenInference
from services.router.gateway.tensors import AS_JSON, FLOATS, MOST_VALUES, count_of, finite, flat, text_of, values_of
from services.router.gateway.translator import Answer, Headers
from shared.errors import Malformed, TooLarge

CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Where the values of a datatype stand that are not raw."""


class GrpcInfer(OpenInference):
    """One ModelInfer. The answer's body is a ModelInferResponse; a refusal's is a problem in JSON.

    Outputs are raw where the inputs were, and where a datatype can only be raw.
    """

    __slots__ = ("_message",)
    protocol = "open-inference-grpc"

    def __init__(self, request: Request, message: ModelInferRequest) -> None:
        super().__init__(request)
        self._message = message

    def read(self) -> None:
        message = self._message
        if message.model_version:
            raise VersionPinned()
        asked: dict[str, Any] = {"inputs": _inputs(message)}
        if message.id:
            asked["id"] = message.id
        if message.parameters:
            asked["parameters"] = _parameters(message.parameters)
        if message.outputs:
            asked["outputs"] = [_described(one.name, one.parameters) for one in message.outputs]
        body = orjson.dumps(asked)
        if b"\\u0000" in body:
            raise Malformed("The request holds a NUL character, which no inference table can keep.")
        self._take(asked, body)

    @property
    def canonical(self) -> object:
        return [self._asked, self._is_raw]

    def fork(self) -> Self:
        return self._copied(type(self)(self._request, self._message))

    @property
    def _is_raw(self) -> bool:
        return bool(self._message.raw_input_contents)

    def _write(self, answer: Answer, said: dict[str, Any], headers: Headers) -> None:
        try:
            answer.body = _response(said, raw=self._is_raw).SerializeToString()
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise UpstreamGarbageError(f"The model server's answer does not fit the protocol: {error}.") from None

    def begin(self, status: int, headers: Headers) -> bytes:
        raise UpstreamGarbageError("The model server streams where one answer was asked for.")


def _inputs(message: ModelInferRequest) -> list[dict[str, Any]]:
    """Raises TensorMalformed, TooLarge."""
    raw = message.raw_input_contents
    found: list[dict[str, Any]] = []
    total = 0
    for position, tensor in enumerate(message.inputs):
        name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
        count = count_of(name, datatype, shape)
        total += count
        if total > MOST_VALUES:
            raise TooLarge(f"The tensors have more than {MOST_VALUES} values; send fewer rows a request.")
        if raw:
            if position >= len(raw):
                raise TensorMalformed(name, f"raw_input_contents has {len(raw)} entries and this is input {position}")
            if tensor.HasField("contents"):
                raise TensorMalformed(name, "it has contents beside raw_input_contents; send one of them")
            values = values_of(name, datatype, count, raw[position])
        else:
            values = _typed(name, datatype, count, tensor.contents)
        found.append(
            {
                **_described(name, tensor.parameters),
                "shape": shape,
                "datatype": AS_JSON.get(datatype, datatype),
                "data": values,
            }
        )
    if len(raw) > len(found):
        raise TensorMalformed(
            found[-1]["name"] if found else "none", f"raw_input_contents has {len(raw) - len(found)} entries too many"
        )
    return found


def _typed(name: str, datatype: str, count: int, contents: Any) -> list[Any]:
    field = CONTENTS.get(datatype)
    if field is None:
        raise TensorMalformed(name, f"{datatype} travels in raw_input_contents only")
    values = list(getattr(contents, field))
    if len(values) != count:
        raise TensorMalformed(name, f"its shape needs {count} values and {field} has {len(values)}")
    if datatype == "BYTES":
        return [text_of(name, one) for one in values]
    return finite(name, values) if datatype in FLOATS else values


def _described(name: str, parameters: Mapping[str, InferParameter]) -> dict[str, Any]:
    return {"name": name, "parameters": _parameters(parameters)} if parameters else {"name": name}


def _parameters(parameters: Mapping[str, InferParameter]) -> dict[str, Any]:
    """Raises Malformed for one without a value."""
    found: dict[str, Any] = {}
    for name, one in parameters.items():
        choice = one.WhichOneof("parameter_choice")
        if choice is None:
            raise Malformed(f"The parameter {name[:100]!r} has no value.")
        found[name] = getattr(one, choice)
    return found


def _response(said: dict[str, Any], *, raw: bool) -> ModelInferResponse:
    """Raises UpstreamGarbageError and what Python raises for values that the message cannot hold."""
    outputs = said.get("outputs") or []
    raw = raw or any(one.get("datatype") not in CONTENTS for one in outputs)
    made = ModelInferResponse(
        model_name=said.get("model_name") or "",
        model_version=said.get("model_version") or "",
        id=said.get("id") or "",
    )
    _set(made.parameters, said.get("parameters"))
    for one in outputs:
        tensor = made.outputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        _set(tensor.parameters, one.get("parameters"))
        if raw:
            made.raw_output_contents.append(packed(one))
            continue
        values = flat(one.get("data"))
        if one["datatype"] == "BYTES":
            values = [value.encode() for value in values]
        elif one["datatype"] in FLOATS:
            values = [float("nan") if value is None else value for value in values]
        getattr(tensor.contents, CONTENTS[one["datatype"]]).extend(values)
    return made


def _set(into: Any, parameters: Any) -> None:
    """What is no plain value has no place in the message and is left out."""
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        if isinstance(value, bool):
            into[name].bool_param = value
        elif isinstance(value, int):
            into[name].int64_param = value
        elif isinstance(value, float):
            into[name].double_param = value
        elif isinstance(value, str):
            into[name].string_param = value
