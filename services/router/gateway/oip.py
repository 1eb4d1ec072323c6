"""The Open Inference Protocol on both sides: bodies pass untouched, and are read for the row and the signature."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import prod
from typing import Any, Self

import orjson

from services.router.errors import ProtocolMismatch, SignatureMismatch, UnsupportedMedia, UpstreamGarbageError
from services.router.gateway import binary_extension
from services.router.gateway.arms import ProviderTarget, Served, Target
from services.router.gateway.binary_extension import Wanted
from services.router.gateway.http_server import PROBLEM_HEADER, Request, problem
from services.router.gateway.protocols import OIP
from services.router.gateway.providers import Attempt, plan
from services.router.gateway.rows import Reading, features_of
from services.router.gateway.rules import MISSING
from services.router.gateway.snapshot_rows import Tensor
from services.router.gateway.tensors import MOST_DIMENSIONS
from services.router.gateway.translator import Answer, Headers, passed
from shared.errors import Invalid, Malformed, MintmarkError

STREAM_KEPT_BYTES = 1 << 20
"""Of a stream, the row keeps this much; the client gets all of it."""

MOST_KNOWN = 256
BINARY_HEADERS = b"%bcontent-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"

NUMERIC = frozenset(
    ("FP16", "FP32", "FP64", "BF16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
)
_ELEMENTS: dict[str, frozenset[type]] = {
    **dict.fromkeys(NUMERIC, frozenset((int, float, type(None)))),
    "BOOL": frozenset((bool, type(None))),
    "BYTES": frozenset((str, type(None))),
}


class OpenInference:
    """`POST /v2/models/{group}/infer`."""

    __slots__ = (
        "_asked",
        "_attempt",
        "_body",
        "_kept",
        "_kept_bytes",
        "_request",
        "_status",
        "_target",
        "_wanted",
        "input",
        "unit",
    )
    protocol = "open-inference"
    streams = False

    def __init__(self, request: Request) -> None:
        self._request = request
        self._body = request.body
        """What the model server is asked: JSON, whatever the client sent."""
        self._asked: dict[str, Any] = {}
        self._wanted: Wanted | None = None
        self._attempt: Attempt | None = None
        self._target: Target | None = None
        self._status = 0
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self.input: bytes | None = None
        self.unit: str | None = None

    def read(self) -> None:
        headers = self._request.headers
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise UnsupportedMedia()
        body, length = self._request.body, headers.get(binary_extension.HEADER)
        binary = b""
        if length is not None:
            body, binary = binary_extension.parted(body, length)
        if b"\\u0000" in body:
            raise Malformed("The body holds a NUL character, which no inference table can keep.")
        try:
            asked: Any = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"The body is not JSON: {error}.") from None
        if not isinstance(asked, dict) or not isinstance(asked.get("inputs"), list):
            raise Invalid("The body is no Open Inference Protocol request: send an object with a list `inputs`.")
        if length is not None or binary_extension.MARK in body:
            binary_extension.filled(asked, binary)
            self._wanted = binary_extension.taken(asked)
            body = orjson.dumps(asked)
        self._take(asked, body)

    def _take(self, asked: dict[str, Any], body: bytes) -> None:
        """The request as JSON, parsed and as it is passed on and kept."""
        self._asked = asked
        self.input = self._body = body
        body_id = asked.get("id")
        self.unit = body_id if isinstance(body_id, str) else None

    def rewrite(self, body: bytes) -> None:
        self._take(orjson.loads(body), body)

    @property
    def value(self) -> object:
        return self._asked

    @property
    def canonical(self) -> object | None:
        """What makes the request the very same as another one: what is asked, and the form of its answer."""
        if self.streams:
            return None
        return self._asked if self._wanted is None else [self._asked, self._wanted.others, dict(self._wanted.named)]

    def attribute(self, name: str) -> object:
        for tensor in self._asked.get("inputs", ()):
            if isinstance(tensor, dict) and tensor.get("name") == name:
                found = tensor.get("data", MISSING)
                while isinstance(found, list):
                    found = found[0] if found else MISSING
                return found
        return self._asked.get(name, MISSING)

    def fork(self) -> Self:
        return self._copied(type(self)(self._request))

    def _copied(self, made: Self) -> Self:
        made._asked, made._body, made._wanted = self._asked, self._body, self._wanted
        made.input, made.unit = self.input, self.unit
        return made

    def ask(self, target: Served, request_id: str) -> tuple[bytes, bytes]:
        if isinstance(target, ProviderTarget):
            return self._ask_provider(target, request_id)
        if target.inputs:
            for tensor in self._asked["inputs"]:
                check(tensor, target.inputs)
        self._target = target
        return target.infer_head, self._body

    def _ask_provider(self, target: ProviderTarget, request_id: str) -> tuple[bytes, bytes]:
        asked = OIP.open(self._body, self._request.path.decode("latin-1"))
        created = int(time.time())
        attempt = self._attempt = plan(asked, target.upstream, target.secret, created=created, request_id=request_id)
        return attempt.request.head(), attempt.request.body

    def features(self, target: Served) -> bytes | None:
        return features_of(self._asked["inputs"], target.feature_names) if target.feature_names else None

    def answer(self, status: int, headers: Headers, body: bytes) -> Answer:
        if self._attempt is not None:
            answered = self._attempt.answer(status, headers, body)
            status, body, headers = answered.status, answered.body, [(b"content-type", answered.content_type)]
        try:
            said = None if b"\\u0000" in body else orjson.loads(body)
        except orjson.JSONDecodeError:
            said = None
        answer = Answer(status, passed(headers), body)
        if isinstance(said, dict):
            if status < 400:
                self._write(answer, said, headers)
            reading = Reading(said, self._target.features if self._target else (), body)
            answer.output, answer.shap = reading.output, reading.shap
            answer.score, answer.prediction = reading.score, reading.prediction
        elif status < 400:
            raise UpstreamGarbageError()
        return answer

    def _write(self, answer: Answer, said: dict[str, Any], headers: Headers) -> None:
        """Make the answer the one that the client takes. Raises UpstreamGarbageError."""
        found = binary_extension.written(said, self._wanted) if self._wanted is not None else None
        if found is not None:
            text, binary = found
            kept = passed([(name, value) for name, value in headers if name != b"content-type"])
            answer.headers = BINARY_HEADERS % (kept, len(text))
            answer.body = text + binary

    def begin(self, status: int, headers: Headers) -> bytes:
        self._status = status
        return passed(headers)

    def chunk(self, data: bytes) -> bytes:
        if self._kept_bytes < STREAM_KEPT_BYTES:
            self._kept.append(data)
            self._kept_bytes += len(data)
        return data

    has_token = True
    is_complete = False

    def end(self) -> tuple[bytes, Answer]:
        return b"", self.so_far()

    def so_far(self) -> Answer:
        return Answer(self._status, output=orjson.dumps(events_of(b"".join(self._kept))))

    def refused(self, error: MintmarkError, request_id: str) -> Answer:
        retry_after: bytes = getattr(error, "retry_after", b"")
        lines = b"%bretry-after: %b\r\n" % (PROBLEM_HEADER, retry_after) if retry_after else PROBLEM_HEADER
        return Answer(error.status, lines, problem(error, request_id=request_id))

    def cut(self, error: MintmarkError, request_id: str) -> bytes:
        return b"event: error\ndata: " + problem(error, request_id=request_id) + b"\n\n"


class GenerateStream(OpenInference):
    """`POST /v2/models/{group}/generate_stream`, the protocol's extension for text: any object in, events out."""

    __slots__ = ()
    streams = True

    def read(self) -> None:
        body = self._request.body
        try:
            asked = None if b"\\u0000" in body else orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"The body is not JSON: {error}.") from None
        if not isinstance(asked, dict):
            raise Invalid('Send an object, such as {"text_input": "…"}, without NUL characters.')
        self._asked = asked
        self.input = body
        body_id = asked.get("id")
        self.unit = body_id if isinstance(body_id, str) else None

    def ask(self, target: Served, request_id: str) -> tuple[bytes, bytes]:
        if isinstance(target, ProviderTarget):
            raise ProtocolMismatch("A provider answers for this version; ask it by a protocol of conversations.")
        return target.stream_head, self._request.body

    def features(self, target: Served) -> bytes | None:
        return None


def events_of(stream: bytes) -> list[Any]:
    """The data of each server-sent event: parsed where it is JSON, else its text."""
    found: list[Any] = []
    for line in stream.decode("utf-8", "replace").replace("\x00", "").splitlines():
        if line.startswith("data:"):
            data = line[5:].strip()
            try:
                found.append(None if "\\u0000" in data else orjson.loads(data))
            except orjson.JSONDecodeError:
                found.append(data)
    return found


def check(tensor: Any, inputs: Mapping[str, Tensor]) -> None:
    """Hold a tensor to the signature's one of its name, if there is any. Raises SignatureMismatch naming it.

    Numbers may come in any numeric datatype, as model servers convert them. A tensor that the model does not know
    passes: champion and challengers get the same request and may look at different parts of it.
    """
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise Invalid("Each of `inputs` is an object with name, shape, datatype and data.")
    name = tensor["name"]
    declared = inputs.get(name)
    if declared is None:
        return
    datatype, shape, data = tensor.get("datatype"), tensor.get("shape"), tensor.get("data")
    if isinstance(shape, list) and len(shape) > MOST_DIMENSIONS:
        raise SignatureMismatch(name, f"its shape has {len(shape)} dimensions; it may have {MOST_DIMENSIONS}")
    try:
        fits = declared.known.get((datatype, *shape))  # type: ignore[misc]
    except TypeError:  # no list, or a list of what cannot be looked up
        fits = None
    count, types = fits or _fitting(name, datatype, shape, declared)
    if not isinstance(data, list):
        raise SignatureMismatch(name, "its data must be a list")
    while data and type(data[0]) is list:
        try:
            data = [one for row in data for one in row]
        except TypeError:
            raise SignatureMismatch(name, "its data mixes lists and values") from None
    if len(data) != count:
        raise SignatureMismatch(name, f"its shape {shape} needs {count} values and {len(data)} were sent")
    if not types.issuperset(map(type, data)):
        wrong = next(type(one).__name__ for one in data if type(one) not in types)
        raise SignatureMismatch(name, f"its datatype is {datatype} and a value is of type {wrong}")


def _fitting(name: str, datatype: Any, shape: Any, declared: Tensor) -> tuple[int, frozenset[type]]:
    """How many values of which types a tensor so described has. Raises SignatureMismatch when it does not fit."""
    types = _ELEMENTS.get(datatype) if isinstance(datatype, str) else None
    if types is None:
        raise SignatureMismatch(name, f"its datatype {str(datatype)[:40]!r} is none of the protocol's")
    if declared.datatype and datatype != declared.datatype and not {datatype, declared.datatype} <= NUMERIC:
        raise SignatureMismatch(name, f"it is sent as {datatype} and the model takes {declared.datatype}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise SignatureMismatch(name, "its shape must be a list of whole numbers from 0")
    if declared.shape and not _fits(shape, declared.shape):
        raise SignatureMismatch(name, f"its shape is {shape} and the model takes {list(declared.shape)}")
    found = (prod(shape), types)
    if len(declared.known) < MOST_KNOWN:
        declared.known[datatype, *shape] = found
    return found


def _fits(shape: list[int], declared: tuple[int, ...]) -> bool:
    """-1 is any size; [n] and [n, 1] are the same column."""
    if len(shape) != len(declared):
        short, long = sorted((tuple(shape), declared), key=len)
        if len(short) != 1 or len(long) != 2 or long[1] not in (1, -1):
            return False
        return len(shape) == 0 or -1 in (shape[0], declared[0]) or shape[0] == declared[0]
    return all(want in (-1, size) for size, want in zip(shape, declared, strict=True))
