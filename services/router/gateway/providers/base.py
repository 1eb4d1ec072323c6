"""What the gateway asks of a provider: where it is asked, how conversations are said to it, how its answers read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from services.router.errors import UpstreamCut
from services.router.gateway.addresses import BaseUrl
from services.router.gateway.conversation import Answer, Closed, Conversation, Event, JsonObject
from services.router.gateway.framing import Frame, Frames
from services.router.gateway.sealing import Secret

HeaderLines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider as a version names it. It holds no key; see `sealing`."""

    kind: str
    """One of `providers.KINDS`."""
    model: str
    """The provider's own name of the model: of a model, an inference profile, an endpoint, or `name/versions/3`."""
    base_url: str = ""
    """Empty for the provider's own address."""
    region: str = ""
    """AWS's, for bedrock and sagemaker."""
    api_version: str = ""
    """Anthropic's: what a translated request asks for. Clients that speak Anthropic's protocol pin their own."""
    container: str = "oip"
    """What the container of a SageMaker endpoint speaks: `oip` or `chat`."""
    max_tokens: int = 4096
    """For a provider that insists on a limit, when the client named none."""
    limit_field: str = "max_completion_tokens"
    """What an OpenAI-compatible server calls the limit; older ones know only `max_tokens`."""
    key_header: str = ""
    """A header that holds the key as it is, where a compatible server wants no bearer token: `api-key`."""
    asks_usage: bool = True
    """Whether an OpenAI-compatible stream is asked for its usage although the client did not; a few servers refuse."""
    ignore: frozenset[str] = frozenset()
    """Fields that the operator lets go where they cannot be translated: of the request itself (`user`, `seed`), and
    deeper ones: `cache_control`, `is_error`, and thoughts by their protocol's name (`reasoning_content`, `thinking`,
    `reasoning`)."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request to be sent by POST. It holds the key: never log it."""

    base: BaseUrl
    path: str
    """With the query, percent-encoded."""
    headers: HeaderLines
    body: bytes

    def head(self) -> bytes:
        """Request line and header lines as HTTP/1.1, without Content-Length."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        return f"POST {self.path} HTTP/1.1\r\nhost: {self.base.authority}\r\n{lines}".encode("latin-1")

    def payload(self, more: bytes = b"") -> bytes:
        """The whole request as HTTP/1.1. `more` is further header lines, each with its line end."""
        return b"%bcontent-length: %d\r\n%b\r\n%b" % (self.head(), len(self.body), more, self.body)

    def __repr__(self) -> str:
        return f"UpstreamRequest({self.base.authority}{self.path}, {len(self.body)} bytes)"


class Decoder(Protocol):
    """Reads one stream. Raises UpstreamGarbageError, and UpstreamError for what the provider says went wrong."""

    def decode(self, frame: Frame) -> list[Event]: ...

    def end(self) -> list[Event]:
        """The stream's bytes are over. Raises UpstreamCut when its answer is not."""
        ...


class Dialect(Protocol):
    """How one provider's conversations are written and read. Stateless.

    `native` answers go to clients who speak the same: what the neutral form has no place for is left out of it then,
    where a translation would have to refuse.
    """

    def path(self, upstream: Upstream, stream: bool) -> str: ...

    def write(self, conversation: Conversation, upstream: Upstream) -> JsonObject:
        """Raises FieldRefused for what cannot be said to this provider."""
        ...

    def read(self, value: JsonObject, native: bool) -> Answer:
        """Raises UpstreamGarbageError."""
        ...

    def decoder(self, native: bool) -> Decoder: ...


Signer = Callable[[Upstream, BaseUrl, str, bytes, Secret | None, bool], HeaderLines]
"""Headers that prove who asks: (upstream, base, path, body, secret, stream)."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A kind of provider."""

    kind: str
    default_base: Callable[[Upstream], str]
    dialect: Dialect | None
    """None where no conversation can be had."""
    native: Mapping[str, Callable[[Upstream, bool], str]]
    """By protocol, the path that speaks the very same: requests to it pass through."""
    sign: Signer
    frames: Callable[[], Frames]
    stream_type: str = "text/event-stream"
    native_dialects: Mapping[str, Dialect] = field(default_factory=dict)
    """Who reads a native conversation's answer, where it is not `dialect`."""
    needs: tuple[str, ...] = ()
    """Large modules that `sign` and `frames` import when they are first called."""

    def load(self) -> None:
        """Import what it needs, before a request waits for that. Blocks."""
        for module in self.needs:
            import_module(module)


def finished_or_cut(finished: bool, closed: bool) -> list[Event]:
    """What a decoder's `end` answers: a stream that said how it finished is whole, whatever its mark of the end."""
    if not finished:
        raise UpstreamCut()
    return [] if closed else [Closed()]
