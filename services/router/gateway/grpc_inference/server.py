"""`inference.GRPCInferenceService` on a port of its own, on the gateway's loop.

Each ModelInfer becomes a Request whose connection is the call, and goes through the exchange that HTTP's requests go
through: the same row before the answer, routes and figures. Every other call is the HTTP path that says the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

import grpc
import orjson
from google.protobuf.message import DecodeError

from services.router.errors import VersionPinned
from services.router.gateway.grpc_inference import messages
from services.router.gateway.grpc_inference.infer import GrpcInfer
from services.router.gateway.http_server import HEADER_BYTES, Request, Streamer, problem
from services.router.gateway.translator import Translate
from shared.errors import Malformed, MintmarkError, Unavailable

log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
Context = grpc.aio.ServicerContext[bytes, bytes]
Infer = Callable[[Request, str, Translate], Awaitable[None]]
"""Begin an exchange with the group of that name. Raises what is refused before the group is known."""

STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Of HTTP's statuses; any other 4xx is INVALID_ARGUMENT, any other 5xx INTERNAL."""


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    request_bytes: int
    response_bytes: int
    calls: int
    """Most at a time; one more is refused with RESOURCE_EXHAUSTED."""


class Call:
    """One call as the connection of its request: the answer is awaited instead of written."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[tuple[int, bytes, bytes]] = asyncio.get_running_loop().create_future()
        """Status as in HTTP, header lines, body."""

    def answer(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """A caller that is gone is no error: what was asked has been done and recorded."""
        if not self.answered.done():
            self.answered.set_result((status, headers, body))

    def begin_stream(self, request: Request, status: int, headers: bytes, streamer: Streamer) -> None:
        raise AssertionError("GrpcInfer refuses a stream before its first byte")

    def send(self, data: bytes) -> None:
        raise AssertionError("nothing streams here")

    def end_stream(self, request: Request, *, whole: bool) -> None:
        raise AssertionError("nothing streams here")


class GrpcServer:
    """`handle` answers a request by HTTP's paths; `infer` begins an exchange."""

    def __init__(self, handle: Callable[[Request], None], infer: Infer, limits: GrpcLimits) -> None:
        self._handle = handle
        self._infer = infer
        self._limits = limits
        self._server: grpc.aio.Server | None = None
        self._methods: dict[str, Callable[[bytes, Call, Context], Awaitable[bytes]]] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listen; returns the port. Raises OSError when it is taken."""
        limits = self._limits
        server = self._server = grpc.aio.server(
            maximum_concurrent_rpcs=limits.calls,
            options=[
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", limits.request_bytes),
                ("grpc.max_send_message_length", limits.response_bytes),
                ("grpc.absolute_max_metadata_size", HEADER_BYTES),
            ],
        )
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.unary_unary_rpc_method_handler(self._served(call)) for name, call in self._methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {host}:{port}: {error}") from None
        await server.start()
        return bound

    async def drain(self, timeout_s: float) -> None:
        """Accept nothing more, let every call in flight have its answer, within the time."""
        if self._server is not None:
            await self._server.stop(timeout_s)

    # -- calls

    def _served(self, call: Callable[[bytes, Call, Context], Awaitable[bytes]]) -> Any:
        """The call as grpc takes it: whatever goes wrong is a status."""

        async def serve(payload: bytes, context: Context) -> bytes:
            try:
                return await call(payload, Call(), context)
            except MintmarkError as error:
                await refuse(context, error.status, b"", problem(error))
            except DecodeError:
                garbage = Malformed("The message cannot be read: it is none of this method's.")
                await refuse(context, garbage.status, b"", problem(garbage))
            except grpc.aio.AbortError:
                raise
            except Exception:
                log.exception("unexpected error")
                await refuse(context, 500, b"", problem(MintmarkError()))

        return serve

    async def _live(self, payload: bytes, call: Call, context: Context) -> bytes:
        status, _ = await self._get(call, context, b"/livez")
        return messages.ServerLiveResponse(live=status == 200).SerializeToString()

    async def _ready(self, payload: bytes, call: Call, context: Context) -> bytes:
        status, _ = await self._get(call, context, b"/readyz")
        return messages.ServerReadyResponse(ready=status == 200).SerializeToString()

    async def _metadata(self, payload: bytes, call: Call, context: Context) -> bytes:
        status, said = await self._get(call, context, b"/v2")
        _require(status, said)
        return messages.ServerMetadataResponse(**said).SerializeToString()

    async def _model_ready(self, payload: bytes, call: Call, context: Context) -> bytes:
        asked = messages.ModelReadyRequest.FromString(payload)
        status, said = await self._get(call, context, _path(asked.name, asked.version) + b"/ready")
        if "ready" not in said:  # refused, and not by the model
            await refuse(context, status, b"", orjson.dumps(said))
        return messages.ModelReadyResponse(ready=bool(said["ready"])).SerializeToString()

    async def _model_metadata(self, payload: bytes, call: Call, context: Context) -> bytes:
        asked = messages.ModelMetadataRequest.FromString(payload)
        status, said = await self._get(call, context, _path(asked.name, asked.version))
        if status != 200:
            await refuse(context, status, b"", orjson.dumps(said))
        made = messages.ModelMetadataResponse(
            name=said["name"], versions=said.get("versions") or (), platform=str(said.get("platform") or "")
        )
        for into, tensors in ((made.inputs, said.get("inputs")), (made.outputs, said.get("outputs"))):
            for one in tensors or ():
                into.add(name=one["name"], datatype=one.get("datatype") or "", shape=one.get("shape") or ())
        return made.SerializeToString()

    async def _model_infer(self, payload: bytes, call: Call, context: Context) -> bytes:
        message = messages.ModelInferRequest.FromString(payload)
        path = _path(message.model_name) + b"/infer"
        request = _request(b"POST", path, call, context)
        await self._infer(request, message.model_name, lambda request: GrpcInfer(request, message))
        status, headers, body = await call.answered
        if status >= 400:
            await refuse(context, status, headers, body)
        metadata = _metadata_of(headers)
        await context.send_initial_metadata(metadata)
        context.set_trailing_metadata(metadata)
        return body

    async def _get(self, call: Call, context: Context, path: bytes) -> tuple[int, dict[str, Any]]:
        """What HTTP says at the path."""
        self._handle(_request(b"GET", path, call, context))
        status, _, body = await call.answered
        said: dict[str, Any] = orjson.loads(body)
        return status, said


async def refuse(context: Context, status: int, headers: bytes, body: bytes) -> NoReturn:
    """End the call with the status of an HTTP answer; our code stands in the message and in the trailing metadata."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    said = said if isinstance(said, dict) else {}
    code = said.get("code") or f"upstream-{status}"
    detail = said.get("detail") or said.get("error") or said.get("title") or f"The model server answered {status}."
    metadata = (*_metadata_of(headers), ("x-mintmark-code", str(code)))
    await context.abort(status_of(status), f"{code}: {detail}"[:4096], metadata)


def status_of(status: int) -> grpc.StatusCode:
    """gRPC's status for HTTP's."""
    return STATUS.get(status) or (grpc.StatusCode.INVALID_ARGUMENT if status < 500 else grpc.StatusCode.INTERNAL)


def _metadata_of(headers: bytes) -> tuple[tuple[str, str], ...]:
    """What the gateway itself says of an answer: x-mintmark-… and when to come again."""
    lines = (line.partition(b": ") for line in headers.split(b"\r\n"))
    return tuple(
        (name.decode(), value.decode("latin-1"))
        for name, _, value in lines
        if name.startswith(b"x-mintmark-") or name == b"retry-after"
    )


def _path(name: str, version: str = "") -> bytes:
    """Raises VersionPinned."""
    if version:
        raise VersionPinned()
    return b"/v2/models/" + quote(name, safe="").encode()


def _require(status: int, said: dict[str, Any]) -> None:
    if status != 200:
        raise Unavailable(str(said.get("detail")))


def _request(method: bytes, path: bytes, call: Call, context: Context) -> Request:
    """The call as a request; metadata are its headers."""
    headers = {
        name.encode(): value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        for name, value in context.invocation_metadata() or ()
    }
    headers.pop(b"content-encoding", None)
    return Request(method, path, headers, b"", call, True, time.perf_counter())
