"""OpenAI's and Anthropic's protocols on the client's side, a provider on the other: one translator a request."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import orjson

from services.router.errors import ProtocolMismatch, UpstreamGarbageError
from services.router.gateway import conversation
from services.router.gateway.arms import ProviderTarget, Served
from services.router.gateway.protocols import EVENT_STREAM, JSON, Asked, status_of
from services.router.gateway.providers import Attempt, Streaming, plan
from services.router.gateway.rules import MISSING
from services.router.gateway.translator import Answer, Headers
from shared.errors import Malformed, MintmarkError

MAX_INT4 = 2**31 - 1


class Chat:
    """A conversation, a response, a message or an embedding that was asked of a group."""

    __slots__ = ("_asked", "_attempt", "_streaming", "input", "protocol", "streams", "unit")

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._attempt: Attempt | None = None
        self._streaming: Streaming | None = None
        self.protocol = asked.protocol.name
        self.streams = asked.stream
        self.input: bytes | None = None
        self.unit: str | None = None

    def read(self) -> None:
        if b"\\u0000" in self._asked.body:
            raise Malformed("The body holds a NUL character, which no inference table can keep.")
        self.input = self._asked.body
        self.unit = _user(self._asked.value)

    def rewrite(self, body: bytes) -> None:
        self._asked = replace(self._asked, body=body, value=orjson.loads(body), _read={})
        self.input = body

    @property
    def value(self) -> object:
        return self._asked.value

    @property
    def canonical(self) -> object | None:
        """What a client of Anthropic's says in its headers counts too."""
        asked = self._asked
        return {"body": asked.value, "api_version": asked.api_version, "features": asked.features}

    def attribute(self, name: str) -> object:
        return self._asked.value.get(name, MISSING)

    def fork(self) -> Chat:
        made = Chat(self._asked)
        made.input, made.unit = self.input, self.unit
        return made

    def ask(self, target: Served, request_id: str) -> tuple[bytes, bytes]:
        if not isinstance(target, ProviderTarget):
            raise ProtocolMismatch(
                f"{target.version} is a deployed model: ask it at /v2/models/{self._asked.model}/infer."
            )
        attempt = self._attempt = plan(
            self._asked, target.upstream, target.secret, created=int(time.time()), request_id=request_id
        )
        return attempt.request.head(), attempt.request.body

    def features(self, target: Served) -> bytes | None:
        return None

    def answer(self, status: int, headers: Headers, body: bytes) -> Answer:
        assert self._attempt is not None
        if self._asked.stream and status == 200:
            self._attempt.stream(status, headers)
            raise UpstreamGarbageError("The provider gave a stream that does not stream.")
        answered = self._attempt.answer(status, headers, body)
        lines = _lines(answered.content_type, answered.retry_after)
        output = None if b"\\u0000" in answered.body else answered.body
        made = Answer(answered.status, lines, answered.body, output=output)
        _count(made, answered.usage)
        return made

    def begin(self, status: int, headers: Headers) -> bytes:
        assert self._attempt is not None
        if not self._asked.stream:
            raise UpstreamGarbageError("The provider streams where nobody asked for a stream.")
        self._streaming = self._attempt.stream(status, headers)
        return _lines(EVENT_STREAM) + b"cache-control: no-cache\r\n"

    def chunk(self, data: bytes) -> bytes:
        assert self._streaming is not None
        return self._streaming.feed(data)

    @property
    def has_token(self) -> bool:
        return self._streaming is not None and self._streaming.has_token

    @property
    def is_complete(self) -> bool:
        return self._streaming is not None and self._streaming.is_complete

    def end(self) -> tuple[bytes, Answer]:
        assert self._streaming is not None
        last = self._streaming.end()
        return last, self.so_far()

    def so_far(self) -> Answer:
        if self._streaming is None:
            return Answer(200)
        made = Answer(200, output=_output(self._streaming.answer))
        _count(made, self._streaming.usage)
        return made

    def refused(self, error: MintmarkError, request_id: str) -> Answer:
        lines = _lines(JSON, getattr(error, "retry_after", b""))
        return Answer(status_of(error), lines, self._asked.protocol.error(error, request_id))

    def cut(self, error: MintmarkError, request_id: str) -> bytes:
        assert self._streaming is not None
        return self._streaming.fail(error)


def _user(value: dict[str, Any]) -> str | None:
    """Whom a request is made for: OpenAI's `safety_identifier` or `user`, Anthropic's `metadata.user_id`."""
    metadata = value.get("metadata")
    named = metadata.get("user_id") if isinstance(metadata, dict) else None
    found = value.get("safety_identifier") or value.get("user") or named
    return found if isinstance(found, str) else None


def _output(answer: conversation.Answer) -> bytes | None:
    """What was heard of a stream, as JSON; None where nothing was."""
    parts = [
        {"type": type(part).__name__.lower(), **{name: value for name, value in asdict(part).items() if value}}
        for part in answer.parts
    ]
    if not parts:
        return None
    made = orjson.dumps({"id": answer.id, "model": answer.model, "parts": parts, "finish": answer.finish}, default=str)
    return None if b"\\u0000" in made else made


def _count(answer: Answer, usage: conversation.Usage | None) -> None:
    if usage is not None:
        answer.input_tokens = min(usage.input, MAX_INT4)
        answer.output_tokens = min(usage.output, MAX_INT4)


def _lines(content_type: bytes, retry_after: bytes = b"") -> bytes:
    lines = b"content-type: %b\r\n" % content_type
    return lines + b"retry-after: %b\r\n" % retry_after if retry_after else lines
