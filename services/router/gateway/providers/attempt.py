"""One attempt at one provider: what to send, and what its answer is to the client who asked.

Where client and provider speak the same, the bytes pass through untouched but for the model's name; elsewhere they are
translated by way of the neutral form. Either way the answer is read as well, for its row, its tokens and its first one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import orjson

from services.router.errors import (
    FieldRefused,
    ProtocolMismatch,
    UpstreamCut,
    UpstreamGarbageError,
    UpstreamKeyRefused,
    UpstreamRefused,
)
from services.router.gateway.addresses import BaseUrl
from services.router.gateway.conversation import (
    Answer,
    AnswerBuilder,
    Event,
    JsonObject,
    Started,
    Usage,
    UsageKnown,
)
from services.router.gateway.framing import Frame, parsed
from services.router.gateway.protocols.base import EVENT_STREAM, JSON, Asked, ChatProtocol
from services.router.gateway.protocols.embeddings import Embeddings
from services.router.gateway.protocols.oip import OpenInference
from services.router.gateway.providers.base import Dialect, Provider, Upstream, UpstreamRequest
from services.router.gateway.providers.garbage import sentence
from services.router.gateway.providers.gemini import Gemini
from services.router.gateway.sealing import Secret
from shared.errors import MintmarkError

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

OUR_FAULT = (401, 402, 403, 407)
"""What a provider answers to a key or an account that it does not take: the gateway's own, and not the client's."""
MAX_STREAM_BYTES = 64 << 20
"""Of a stream in all: what was said is kept for the row until its end."""
MAX_HELD_BYTES = 1 << 20
"""Of a stream before its first token, where only pings and heads can be."""
INVALID_KEY = b"API_KEY_INVALID"
"""Gemini's reason beside a 400."""
KEPT_STATUSES = (503, 529)
"""Of 5xx: come back later, which clients know how to. Every other becomes 502."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the client gets, and what its row gets."""

    status: int
    content_type: bytes
    body: bytes
    answer: Answer | None = None
    """The model's turn, where it is one and was understood."""
    usage: Usage | None = None
    retry_after: bytes = b""
    """The provider's header of a refusal, for the client to keep to; an UpstreamRefused has it as well."""


@dataclass(slots=True)
class Attempt:
    """Made by `providers.plan`. Used once: for `answer` or for `stream`."""

    asked: Asked
    provider: Provider
    request: UpstreamRequest
    is_native: bool
    """Whether bytes pass through."""
    dialect: Dialect | None
    created: int
    request_id: str
    ignore: frozenset[str] = frozenset()
    drops_usage: bool = False
    """Whether the stream was asked for its usage for our sake, which the client must not see."""
    secret: Secret | None = field(default=None, repr=False)

    def answer(self, status: int, headers: Headers, body: bytes) -> Answered:
        """The answer to a request that is not streamed, or the refusal of one that is.

        Raises UpstreamGarbageError, UpstreamKeyRefused, UpstreamRefused: all of them with no word of the key.
        """
        body = self.secret.scrub(body) if self.secret is not None else body
        if status >= 300:
            return self._refused(status, dict(headers).get(b"retry-after", b""), body)
        if isinstance(self.asked.protocol, OpenInference):
            return self._inferred(status, headers, body)
        value = parsed(body)
        if isinstance(self.asked.protocol, Embeddings):
            return self._embedded(status, value, body)
        assert self.dialect is not None
        answer = self._named(self.dialect.read(value, self.is_native))
        if not self.is_native:
            assert isinstance(self.asked.protocol, ChatProtocol)
            written = self.asked.protocol.write(answer, self.asked.conversation(self.ignore), self.created)
            body = orjson.dumps(written)
        return Answered(status, JSON, body, answer, answer.usage)

    def stream(self, status: int, headers: Headers) -> Streaming:
        """The stream, once its head is there. Its `status` must be 200; else give the whole body to `answer`.

        Raises UpstreamGarbageError when what comes is no stream.
        """
        found = dict(headers).get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if status != 200 or found != self.provider.stream_type:
            raise UpstreamGarbageError(f"The provider answered {status} with {found!r} where a stream was asked for.")
        return Streaming(self)

    def failed(self, error: MintmarkError) -> bytes:
        """The body of an answer that never came, in the client's own shape."""
        return self.asked.protocol.error(error, self.request_id)

    def scrubbed(self, frame: Frame) -> Frame:
        """The frame without the key, should the provider have said it."""
        if self.secret is None:
            return frame
        raw, data = self.secret.scrub(frame.raw), self.secret.scrub(frame.data)
        return frame if data is frame.data and raw is frame.raw else Frame(raw, frame.event, data)

    def _named(self, answer: Answer) -> Answer:
        """Bedrock names neither answer nor model, and a compatible server may leave out either."""
        if answer.id and answer.model:
            return answer
        return replace(answer, id=answer.id or self.request_id, model=answer.model or self.asked.model)

    def _refused(self, status: int, retry_after: bytes, body: bytes) -> Answered:
        if status < 400:
            raise UpstreamGarbageError(f"The provider answered {status}; redirects are not followed.")
        if status in OUR_FAULT or INVALID_KEY in body:
            raise UpstreamKeyRefused(f"The provider answered {status} to the gateway's own key; set a valid one.")
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            value = body.decode("utf-8", "replace")
        if status == 424 and isinstance(value, dict) and isinstance(value.get("OriginalStatusCode"), int):
            status, value = value["OriginalStatusCode"], value.get("OriginalMessage") or value
        elif self.is_native and isinstance(value, dict) and status < 500:
            return Answered(status, JSON, body, retry_after=retry_after)
        kept = (400 <= status < 500 and status not in OUR_FAULT) or status in KEPT_STATUSES
        raise UpstreamRefused(status if kept else 502, f"The provider refused: {sentence(value)}", retry_after)

    def _inferred(self, status: int, headers: Headers, body: bytes) -> Answered:
        found = dict(headers)
        head = found.get(b"inference-header-content-length")
        size = len(body)
        if head is not None:
            if not head.isdigit() or int(head) > size:
                raise UpstreamGarbageError("The model server's header says more JSON than it sent.")
            size = int(head)
        if not isinstance(parsed(body[:size]).get("outputs"), list):
            raise UpstreamGarbageError("The model server's answer has no list of outputs.")
        return Answered(status, found.get(b"content-type", JSON), body)

    def _embedded(self, status: int, value: JsonObject, body: bytes) -> Answered:
        protocol = self.asked.protocol
        assert isinstance(protocol, Embeddings)
        if self.is_native:
            if not isinstance(value.get("data"), list):
                raise UpstreamGarbageError("The provider's answer has no list of embeddings.")
            counted = value.get("usage")
            tokens = counted.get("prompt_tokens") if isinstance(counted, dict) else None
            return Answered(status, JSON, body, usage=Usage(tokens) if isinstance(tokens, int) else None)
        request = protocol.read(self.asked.value)
        assert isinstance(self.dialect, Gemini)
        answer = self.dialect.read_embedding(value, request)
        return Answered(status, JSON, orjson.dumps(protocol.write(answer, request)), usage=Usage(answer.input_tokens))


class Streaming:
    """A stream on its way: bytes of the provider in, bytes for the client out, in whole events.

    Nothing comes out before the first token, so that until then another provider may be asked in this one's place.
    """

    content_type = EVENT_STREAM

    def __init__(self, attempt: Attempt) -> None:
        assert attempt.dialect is not None and isinstance(attempt.asked.protocol, ChatProtocol)
        self._attempt = attempt
        self._frames = attempt.provider.frames()
        self._decoder = attempt.dialect.decoder(attempt.is_native)
        conversation = None if attempt.is_native else attempt.asked.conversation(attempt.ignore)
        self._writer = attempt.asked.protocol.stream(conversation, attempt.created)
        self._builder = AnswerBuilder()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether something went to the client: no other provider may be asked any more."""
        return self._builder.has_token or self._builder.finish is not None

    @property
    def has_token(self) -> bool:
        """Whether the first token was heard; time to first token is the time until the `feed` after which it is set."""
        return self._builder.has_token

    @property
    def is_complete(self) -> bool:
        """Whether the provider said that nothing more follows. What it sends after that is not looked at."""
        return self._builder.is_closed

    @property
    def answer(self) -> Answer:
        """What was heard so far, for the row."""
        return self._builder.answer()

    @property
    def usage(self) -> Usage | None:
        return self._builder.usage

    def feed(self, chunk: bytes) -> bytes:
        """Bytes for the client, often none. Raises UpstreamError, UpstreamGarbageError; see `fail` for what then."""
        if self.is_complete:
            return b""
        self._bytes += len(chunk)
        if self._bytes > MAX_STREAM_BYTES:
            raise UpstreamGarbageError(f"The provider's stream is larger than {MAX_STREAM_BYTES} bytes.")
        return self._passed(self._frames.feed(chunk))

    def end(self) -> bytes:
        """The provider's last byte was fed. Raises UpstreamCut when its answer has no end."""
        if self.is_complete:
            return b""
        passed = self._passed(self._frames.end(), last=True)
        if not self.is_complete:
            passed += self._written(self._decoder.end())
        return passed

    def fail(self, error: MintmarkError) -> bytes:
        """The event by which the client sees an error, after the stream has begun."""
        return self._writer.fail(error)

    def _passed(self, frames: list[Frame], last: bool = False) -> bytes:
        out: list[bytes] = []
        for frame in frames:
            if self.is_complete:
                break
            frame = self._attempt.scrubbed(frame)
            try:
                events = self._decoder.decode(frame)
            except UpstreamGarbageError as error:
                if last:  # not garbage but the torn end of an event
                    raise UpstreamCut() from error
                raise
            if not self._attempt.is_native:
                out.append(self._written(events))
                continue
            self._add(events)
            only_usage = bool(events) and all(isinstance(event, UsageKnown) for event in events)
            if not (self._attempt.drops_usage and only_usage):
                out.append(frame.raw)
        return self._released(b"".join(out))

    def _written(self, events: list[Event]) -> bytes:
        written = [self._writer.write(event) for event in self._add(events)]
        return b"".join(written)

    def _add(self, events: list[Event]) -> list[Event]:
        named = [self._named(event) if isinstance(event, Started) else event for event in events]
        for event in named:
            self._builder.add(event)
        return named

    def _named(self, event: Started) -> Started:
        return Started(event.id or self._attempt.request_id, event.model or self._attempt.asked.model)

    def _released(self, out: bytes) -> bytes:
        if not self.has_begun:
            self._held_bytes += len(out)
            if self._held_bytes > MAX_HELD_BYTES:
                raise UpstreamGarbageError(f"The provider sent {MAX_HELD_BYTES} bytes without a first token.")
            self._held.append(out)
            return b""
        if self._held:
            out, self._held = b"".join((*self._held, out)), []
        return out


MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


def with_model(body: bytes, value: JsonObject, model: str) -> bytes:
    """`body` with another model's name, and every other byte as it was.

    The name is found by its spelling and checked by reading what came out, since `"model"` may stand deeper as well.
    """
    wanted = {**value, "model": model}
    candidates = list(MODEL.finditer(body))
    for found in candidates:
        spliced = body[: found.start(1)] + orjson.dumps(model) + body[found.end(1) :]
        # The only one there is needs no second look, unless the name of a field may be spelled with escapes.
        if (len(candidates) == 1 and b"\\u00" not in body) or orjson.loads(spliced) == wanted:
            return spliced
    return orjson.dumps(wanted)


def with_usage(body: bytes, value: JsonObject) -> bytes:
    """`body` asking for the usage at the end of its stream, which chat completions do not give unasked."""
    options = value.get("stream_options")
    if options is None and "stream_options" not in value:
        begin = body.index(b"{") + 1
        return body[:begin] + b'"stream_options":{"include_usage":true},' + body[begin:]
    if options is not None and not isinstance(options, dict):
        raise FieldRefused("stream_options", "must be an object")
    return orjson.dumps({**orjson.loads(body), "stream_options": {**(options or {}), "include_usage": True}})


def plan(
    asked: Asked,
    provider: Provider,
    upstream: Upstream,
    secret: Secret | None,
    *,
    created: int,
    request_id: str,
    ask_usage: bool = True,
) -> Attempt:
    """See `providers.plan`."""
    base = BaseUrl.parse(upstream.base_url or provider.default_base(upstream))
    name = asked.protocol.name
    native = provider.native.get(name)
    drops_usage = False
    dialect = provider.native_dialects.get(name, provider.dialect)
    headers: tuple[tuple[str, str], ...] = ()
    if native is not None:
        path = native(upstream, asked.stream)
        body = (
            asked.body
            if isinstance(asked.protocol, OpenInference)
            else with_model(asked.body, asked.value, upstream.model)
        )
        if name == "chat" and asked.stream and ask_usage and upstream.asks_usage:
            options = asked.value.get("stream_options")
            drops_usage = not (isinstance(options, dict) and options.get("include_usage"))
            body = with_usage(body, asked.value) if drops_usage else body
    else:
        dialect = provider.dialect
        if dialect is None:
            raise ProtocolMismatch(f"What stands behind {asked.model!r} speaks {', '.join(provider.native)} only.")
        path, written = _translated(asked, dialect, upstream)
        body = orjson.dumps(written)
    if provider.kind == "anthropic":
        headers = _anthropic_headers(asked, upstream)
    path = base.path + path
    signed = provider.sign(upstream, base, path[len(base.path) :], body, secret, asked.stream)
    request = UpstreamRequest(base, path, signed + headers, body)
    return Attempt(
        asked,
        provider,
        request,
        native is not None,
        dialect,
        created,
        request_id,
        upstream.ignore,
        drops_usage,
        secret,
    )


def _translated(asked: Asked, dialect: Dialect, upstream: Upstream) -> tuple[str, JsonObject]:
    protocol = asked.protocol
    if isinstance(protocol, Embeddings):
        if not isinstance(dialect, Gemini):
            raise ProtocolMismatch(
                f"What stands behind {asked.model!r} makes no embeddings that can be asked for here."
            )
        request = protocol.read(asked.value)
        return dialect.embedding_path(upstream), dialect.write_embedding(request, upstream)
    if isinstance(protocol, OpenInference):
        raise ProtocolMismatch(f"What stands behind {asked.model!r} is a conversation's model and takes no tensors.")
    return dialect.path(upstream, asked.stream), dialect.write(asked.conversation(upstream.ignore), upstream)


def _anthropic_headers(asked: Asked, upstream: Upstream) -> tuple[tuple[str, str], ...]:
    """A client of Anthropic's keeps the API version and the features that it was written for."""
    native = asked.protocol.name == "messages"
    for value, name in ((asked.api_version, "anthropic-version"), (asked.features, "anthropic-beta")):
        if not value.isascii() or not (value.isprintable() or not value):
            raise FieldRefused(name, "must be plain text")
    version = (asked.api_version if native else "") or upstream.api_version or "2023-06-01"
    headers = (("anthropic-version", version),)
    return (*headers, ("anthropic-beta", asked.features)) if native and asked.features else headers
