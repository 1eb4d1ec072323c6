"""Sets of versions as roaring bitmaps, and numbers by block as they are kept. Pure.

A block is 65,536 numbers in the order of registration: the high half of a number is its block, the low half its place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

BLOCK = 1 << 16
LAST_NUMBER = (1 << 32) - 1
"""Bitmaps hold 32 bits: four thousand million registrations in one installation."""

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.uint16]
Numbers = npt.NDArray[np.uint32]

_ARRAY_MOST = 4_096
_COOKIE = 12_346


def block_of(number: int) -> int:
    return number >> 16


def of_block(block: int) -> tuple[int, int]:
    """The numbers of a block: the first, and the first that is of the next one."""
    return block << 16, (block + 1) << 16


def array_of(bitmap: BitMap) -> Numbers:
    """Its numbers, ascending."""
    return np.frombuffer(bitmap.to_array(), np.uint32)


def bitmap_of(places: Mapping[int, Places]) -> BitMap:
    """The set of these places of these blocks, each ascending.

    Written as the format of roaring bitmaps has it: building one from its members costs 10 ms a million, this 1 ms.
    """
    return _written({block: (len(here), _body(here)) for block, here in places.items() if len(here)})


def bitmap_of_marked(marked: Mapping[int, tuple[Places, npt.NDArray[np.bool_]]]) -> BitMap:
    """The same of those places that are marked. Where many are, no list of them is made."""
    filled: dict[int, tuple[int, bytes]] = {}
    for block, (places, mark) in marked.items():
        count = int(np.count_nonzero(mark))
        if count > _ARRAY_MOST:
            whole = mark
            if len(places) < BLOCK:
                whole = np.zeros(BLOCK, np.bool_)
                whole[places] = mark
            filled[block] = count, np.packbits(whole, bitorder="little").tobytes()
        elif count:
            filled[block] = count, _body(places[mark])
    return _written(filled)


def _body(places: Places) -> bytes:
    if len(places) <= _ARRAY_MOST:
        return places.astype("<u2").tobytes()
    marked = np.zeros(BLOCK, np.uint8)
    marked[places] = 1
    return np.packbits(marked, bitorder="little").tobytes()


def _written(filled: Mapping[int, tuple[int, bytes]]) -> BitMap:
    """Containers by block, each with how many are in it."""
    header = bytearray(struct.pack("<II", _COOKIE, len(filled)))
    blocks = sorted(filled)
    for block in blocks:
        header += struct.pack("<HH", block, filled[block][0] - 1)
    offset = len(header) + 4 * len(filled)
    for block in blocks:
        header += struct.pack("<I", offset)
        offset += len(filled[block][1])
    return BitMap.deserialize(bytes(header) + b"".join(filled[block][1] for block in blocks))


def bitmap_of_numbers(numbers: Numbers) -> BitMap:
    """The set of ascending numbers."""
    return bitmap_of(dict(split(numbers)))


def split(numbers: Numbers) -> Iterator[tuple[int, Places]]:
    """Ascending numbers by block."""
    if not len(numbers):
        return
    blocks = numbers >> 16
    edges = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(numbers)]
    places = numbers.astype(np.uint16)
    for start, end in pairwise(edges):
        yield int(blocks[start]), places[start:end]


def packed(bitmap: BitMap) -> bytes:
    bitmap.run_optimize()
    return bytes(bitmap.serialize())


def unpack_numbers(body: bytes) -> tuple[Places, Floats]:
    """Places in a block, ascending, and the number at each."""
    count = len(body) // 10
    return np.frombuffer(body, "<u2", count), np.frombuffer(body, "<f8", count, 2 * count)


def pack_numbers(places: Places, values: Floats) -> bytes:
    return places.astype("<u2").tobytes() + values.astype("<f8").tobytes()


def with_changes(places: Places, values: Floats, changes: Mapping[int, float | None]) -> tuple[Places, Floats]:
    """The numbers of a block after some were set, or taken away (None)."""
    changed = np.fromiter(changes, np.uint16, len(changes))
    kept = ~np.isin(places, changed)
    added = {place: value for place, value in changes.items() if value is not None}
    places = np.concatenate([places[kept], np.fromiter(added, np.uint16, len(added))])
    values = np.concatenate([values[kept], np.fromiter(added.values(), np.float64, len(added))])
    order = np.argsort(places, kind="stable")
    return places[order], values[order]


def union(parts: Iterable[BitMap]) -> BitMap:
    found = list(parts)
    return BitMap.union(*found) if found else BitMap()
