"""Cuts streams into events, at whatever byte the network cut them: server-sent events and AWS event streams."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from services.router.errors import UpstreamCut, UpstreamError, UpstreamGarbageError

MAX_FRAME_BYTES = 16 << 20
# Atomic, because a CR LF taken apart would count as two line ends, and two line ends as the end of an event.
BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream."""

    raw: bytes
    """The bytes that it came as; of all frames together they are the stream's bytes."""
    event: str
    data: bytes
    """Empty for a comment."""


class Frames(Protocol):
    """Cuts a stream into frames. Raises UpstreamGarbageError."""

    def feed(self, chunk: bytes) -> list[Frame]: ...

    def end(self) -> list[Frame]:
        """The stream has ended; what is left, if it can be a frame. Raises UpstreamCut when it cannot."""
        ...


class SseFrames:
    """Server-sent events by the HTML standard: any of the three line ends, comments, data of several lines."""

    def __init__(self) -> None:
        self._buffer = b""
        self._searched = 0
        self._begun = False

    def feed(self, chunk: bytes) -> list[Frame]:
        self._buffer += chunk
        frames: list[Frame] = []
        begin = 0
        search = max(0, self._searched - 3)
        while (found := BLANK_LINE.search(self._buffer, search)) is not None:
            frames.append(self._frame(self._buffer[begin : found.end()]))
            begin = search = found.end()
        if begin:
            self._buffer = self._buffer[begin:]
        self._searched = len(self._buffer)
        if self._searched > MAX_FRAME_BYTES:
            raise UpstreamGarbageError(f"An event of the stream is larger than {MAX_FRAME_BYTES} bytes.")
        return frames

    def end(self) -> list[Frame]:
        """The last event may lack its blank line; whether it is whole, its reader sees."""
        rest, self._buffer = self._buffer, b""
        return [self._frame(rest + b"\n\n")] if rest.strip() else []

    def _frame(self, raw: bytes) -> Frame:
        if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:  # nearly all are
            self._begun = True
            return Frame(raw, "", raw[6:-2])
        text = raw
        if not self._begun:
            text = text.removeprefix(b"\xef\xbb\xbf")
            self._begun = True
        event, data = "", []
        for line in LINE_END.split(text):
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            elif name == b"event":
                event = value.removeprefix(b" ").decode("utf-8", "replace")
        return Frame(raw, event, b"\n".join(data))


class AwsFrames:
    """`application/vnd.amazon.eventstream`, checksums verified. `event` is the event's or the exception's type."""

    def __init__(self) -> None:
        from botocore.eventstream import EventStreamBuffer  # only AWS's streams need it: AWS_NEEDS of signing.py

        self._buffer = EventStreamBuffer()
        self._held = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        from botocore.eventstream import ParserError

        self._buffer.add_data(chunk)
        self._held += len(chunk)
        frames: list[Frame] = []
        try:
            for message in self._buffer:
                headers: dict[str, Any] = message.headers
                kind = headers.get(":exception-type") or headers.get(":event-type") or headers.get(":error-code") or ""
                frames.append(Frame(b"", str(kind), bytes(message.payload)))
                self._held -= message.prelude.total_length
        except ParserError as error:
            raise UpstreamGarbageError(f"The provider's event stream is damaged: {error}.") from None
        if self._held > MAX_FRAME_BYTES:
            raise UpstreamGarbageError(f"A message of the event stream is larger than {MAX_FRAME_BYTES} bytes.")
        return frames

    def end(self) -> list[Frame]:
        if self._held:
            raise UpstreamCut()
        return []


class SseInAws:
    """Server-sent events whose bytes come in the payload parts of an AWS event stream, as SageMaker sends them."""

    def __init__(self) -> None:
        self._outer = AwsFrames()
        self._inner = SseFrames()

    def feed(self, chunk: bytes) -> list[Frame]:
        frames: list[Frame] = []
        for part in self._outer.feed(chunk):
            if part.event == "PayloadPart":
                frames += self._inner.feed(part.data)
            else:
                raise UpstreamError(f"The provider broke its stream off: {part.event}.")
        return frames

    def end(self) -> list[Frame]:
        return self._outer.end() + self._inner.end()


def sse(data: dict[str, Any] | bytes, event: str = "") -> bytes:
    """One server-sent event."""
    body = data if isinstance(data, bytes) else orjson.dumps(data)
    return b"event: %b\ndata: %b\n\n" % (event.encode(), body) if event else b"data: %b\n\n" % body


def parsed(data: bytes) -> dict[str, Any]:
    """A JSON object that a provider sent. Raises UpstreamGarbageError."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UpstreamGarbageError(f"The provider sent something that is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UpstreamGarbageError("The provider sent JSON that is not an object.")
    return value
