"""A streamed answer as windows of text: server-sent events held until what they say was looked at. Pure.

The text of a part (a choice's content, a block, a tool call's arguments) comes in pieces over many events: a channel.
A look sees, of each channel, what is held behind the last characters that have left, so that what lies across two
windows is found. Released are the events up to the last few characters of each channel, and no event within a match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.router.gateway.guardrails.findings import Span, merged
from services.router.gateway.guardrails.texts import Texts

SILENT = frozenset(("reasoning_content", "thinking", "arguments", "partial_json", "refusal"))
"""Leaves that are no part of what an answer says, for those who judge it whole."""

Channel = tuple[Any, ...]


@dataclass(slots=True)
class Frame:
    """One event: its lines as they came, and the texts in its data, each with its channel."""

    raw: bytes
    texts: Texts | None
    channels: list[Channel] = field(default_factory=list)

    def written(self, texts: Mapping[int, str]) -> bytes:
        """The event with other texts in it."""
        if self.texts is None or not texts:
            return self.raw
        for number, text in texts.items():
            self.texts.write(number, text)
        kept = [line for line in self.raw.strip().splitlines() if not line.startswith(b"data:")]
        return b"".join(line + b"\n" for line in (*kept, b"data: " + self.texts.dump())) + b"\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """One text of a frame, from `start` to before `end` of what is held of its channel."""

    frame: int
    number: int
    start: int
    end: int


@dataclass(slots=True)
class _Held:
    context: str = ""
    text: str = ""
    pieces: list[Piece] = field(default_factory=list)


class Window:
    """What is held of one stream."""

    def __init__(self, window_characters: int, overlap_characters: int) -> None:
        self._window = window_characters
        self._overlap = overlap_characters
        self._partial = b""
        self._frames: list[Frame] = []
        self._contexts: dict[Channel, str] = {}
        self._serial = 0
        self._fresh = 0
        self.held_bytes = 0

    def feed(self, data: bytes) -> None:
        """More of the stream, cut anywhere."""
        self.held_bytes += len(data)
        self._partial += data
        while True:
            ends = [place + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (place := self._partial.find(mark)) >= 0]
            if not ends:
                return
            end = min(ends)
            self._add(self._partial[:end])
            self._partial = self._partial[end:]

    def close(self) -> None:
        """The stream is over: what is left is an event as well."""
        if self._partial:
            self._add(self._partial)
            self._partial = b""

    @property
    def is_due(self) -> bool:
        """Whether a window's worth of text came since the last look; events without any wait for nothing."""
        return self._fresh >= self._window or (bool(self._frames) and not any(one.channels for one in self._frames))

    @property
    def is_empty(self) -> bool:
        return not self._frames

    def _add(self, raw: bytes) -> None:
        frame = Frame(raw, None)
        data = b"\n".join(line[5:].strip() for line in raw.splitlines() if line.startswith(b"data:"))
        try:
            value = orjson.loads(data) if data[:1] in (b"{", b"[", b'"') else None
        except orjson.JSONDecodeError:
            value = data.decode("utf-8", "replace")
        if isinstance(value, str):
            value = [value]  # a text that stands alone
        if value is not None:
            frame.texts = Texts(value, embedded=False)
            frame.channels = [self._channel(value, path) for _, _, path in frame.texts.places]
            self._fresh += sum(map(len, frame.texts.all))
        self._frames.append(frame)

    def _channel(self, value: Any, path: tuple[Any, ...]) -> Channel:
        if not isinstance(value, dict):
            return ("data",)
        if "delta" not in path and (len(path) > 1 or value.keys() & {"type", "choices"}):
            self._serial += 1
            return ("whole", self._serial)
        indices = tuple(value.get(name) for name in ("type", "output_index", "content_index", "index"))
        within: Any = value
        for key in path[:-1]:
            within = within[key]
            if isinstance(within, dict) and isinstance(within.get("index"), int):
                indices += (within["index"],)
        return (*indices, *(key for key in path if isinstance(key, str)))

    # -- looking

    def texts(self) -> list[tuple[Channel, int, str]]:
        """By channel: how much of the text has left already, and the text."""
        self._fresh = 0
        held = self._held(len(self._frames))
        return [(channel, len(one.context), one.context + one.text) for channel, one in held.items() if one.text]

    def whole(self) -> str:
        """What the answer says, where all of it is held."""
        held = self._held(len(self._frames))
        said = [one.text for channel, one in held.items() if channel[0] != "whole" and not SILENT & set(channel)]
        return "".join(said)

    def _held(self, count: int) -> dict[Channel, _Held]:
        found: dict[Channel, _Held] = {}
        for place, frame in enumerate(self._frames[:count]):
            for number, channel in enumerate(frame.channels):
                one = found.setdefault(channel, _Held(self._contexts.get(channel, "")))
                assert frame.texts is not None
                text = frame.texts.all[number]
                one.pieces.append(Piece(place, number, len(one.text), len(one.text) + len(text)))
                one.text += text
        return found

    def release(self, count: int, masks: Mapping[Channel, Sequence[Span]], *, final: bool) -> bytes:
        """The first events that may leave, of `count` that were looked at; `masks` are spans of `texts`' texts."""
        held = self._held(count)
        leaving = count if final else self._leaving(count, held, masks)
        rewritten: dict[int, dict[int, str]] = {}
        for channel, one in held.items():
            spans = [(start - len(one.context), end - len(one.context), label)
                     for start, end, label in merged(masks.get(channel, ()))]  # fmt: skip
            for piece in one.pieces:
                if piece.frame < leaving and any(start < piece.end and end > piece.start for start, end, _ in spans):
                    rewritten.setdefault(piece.frame, {})[piece.number] = _cut(one.text, piece, spans)
            if channel[0] != "whole":
                gone = max((piece.end for piece in one.pieces if piece.frame < leaving), default=0)
                kept = (one.context + one.text[:gone])[-self._overlap :] if self._overlap else ""
                self._contexts[channel] = kept
        out = b"".join(frame.written(rewritten.get(place, {})) for place, frame in enumerate(self._frames[:leaving]))
        self.held_bytes -= sum(len(frame.raw) for frame in self._frames[:leaving])
        del self._frames[:leaving]
        return out

    @property
    def count(self) -> int:
        return len(self._frames)

    def _leaving(self, count: int, held: Mapping[Channel, _Held], masks: Mapping[Channel, Sequence[Span]]) -> int:
        leaving = count
        for channel, one in held.items():
            if channel[0] == "whole":
                continue
            bound = len(one.text) - self._overlap
            spans = merged(masks.get(channel, ()))
            for piece in one.pieces:
                crossed = any(start - len(one.context) < piece.end < end - len(one.context) for start, end, _ in spans)
                if piece.end > bound or crossed:
                    leaving = min(leaving, piece.frame)
                    break
        return leaving


def _cut(text: str, piece: Piece, spans: Iterable[tuple[int, int, str]]) -> str:
    """A piece of the text with a mask where a span begins in it, and without what spans cover of it."""
    made: list[str] = []
    place = piece.start
    for start, end, label in spans:
        if end <= piece.start or start >= piece.end:
            continue
        if start >= piece.start:
            made += (text[place:start], f"<{label}>")
        elif start < 0 and place == 0:
            made.append(f"<{label}>")  # its beginning has left before the rest made it one
        place = min(end, piece.end)
    return "".join((*made, text[place : piece.end]))
