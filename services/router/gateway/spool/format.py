"""What a record in a segment is: its length, the CRC-32 of its payload, the payload. Pure.

A payload begins with the workspace and the group (one byte of length, then `workspace NUL group`); the rest is the row
as one tuple of Postgres' binary COPY format (`rows.py`), so that nobody renders it a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from zlib import crc32

FRAME = Struct("<II")
MAX_PAYLOAD = 256 << 20
"""No row is larger: a length beyond it is not a length."""

SEGMENT_SUFFIX = ".rows"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a reader stands: up to `offset` of `segment`, everything was taken."""

    segment: int = 1
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Whole records of a stretch of a segment: payloads as (start, end) in the data, and where the next one begins.

    `bad` is the place of a record that is all there and does not hold its checksum; what follows was not looked at.
    """

    payloads: list[tuple[int, int]]
    end: int
    wanted: int
    """Bytes from `end` that the next record needs to be whole; 0 where that is not known."""
    bad: bool


def frame(payload: bytes) -> bytes:
    """The payload as a record."""
    return FRAME.pack(len(payload), crc32(payload)) + payload


def address(workspace: str, group: str) -> bytes:
    """What the payload of every row of a group begins with."""
    key = f"{workspace}\0{group}".encode()
    return bytes((len(key),)) + key


def addressed(payload: bytes) -> tuple[str, str, bytes]:
    """A payload's workspace and group, and its tuple."""
    end = 1 + payload[0]
    workspace, _, group = payload[1:end].decode().partition("\0")
    return workspace, group, payload[end:]


def records(data: bytes, start: int = 0) -> Found:
    """Every whole record of `data` from `start` on, until one is cut short or bad."""
    size = len(data)
    view = memoryview(data)
    header = FRAME.size
    payloads: list[tuple[int, int]] = []
    unpack = FRAME.unpack_from
    while start + header <= size:
        length, checksum = unpack(data, start)
        if length > MAX_PAYLOAD:
            return Found(payloads, start, 0, bad=True)
        begin = start + header
        end = begin + length
        if end > size:
            return Found(payloads, start, header + length, bad=False)
        if not length or crc32(view[begin:end]) != checksum:  # zeros after a power loss hold the checksum of nothing
            return Found(payloads, start, header + length, bad=True)
        payloads.append((begin, end))
        start = end
    return Found(payloads, start, header if start < size else 0, bad=False)
