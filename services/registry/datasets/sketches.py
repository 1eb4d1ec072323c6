"""The hashes of a split's rows: every one of them up to MOST, and beyond that a sample that all sketches agree on.

Exact but for chance: two different rows share a 64-bit hash once in 2^64, so that among 8 million rows against
8 million some 3.5e-6 false matches are to be expected. Beyond MOST distinct rows the hashes whose lowest bit is set are
dropped, then those with the next bit, and so on (`halvings`): what is left is a sample by hash, the same rows of
whichever file they stand in, and counts are its counts times 2^halvings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from services.registry.datasets.rows import Hashes

MOST = 8_000_000
PENDING = 1_000_000


@dataclass(frozen=True, slots=True)
class Sketch:
    """Sorted distinct hashes; `rows` counts all rows, those that stand twice too."""

    rows: int
    hashes: Hashes
    halvings: int = 0

    @property
    def distinct(self) -> int:
        return len(self.hashes) << self.halvings

    def to_bytes(self) -> bytes:
        return self.hashes.astype("<u8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, rows: int, halvings: int) -> Sketch:
        return cls(rows, np.frombuffer(data, dtype="<u8").astype(np.uint64), halvings)


class Sketching:
    """A sketch in the making; holds MOST + PENDING hashes at most."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._rows = 0
        self._halvings = 0
        self._kept: Hashes = np.empty(0, np.uint64)
        self._pending: list[Hashes] = []
        self._waiting = 0

    def add(self, hashes: Hashes) -> None:
        self._rows += len(hashes)
        self._pending.append(_sampled(hashes, self._halvings))
        self._waiting += len(self._pending[-1])
        if self._waiting >= PENDING:
            self._settle()

    def made(self) -> Sketch:
        self._settle()
        return Sketch(self._rows, self._kept, self._halvings)

    def _settle(self) -> None:
        self._kept = np.unique(np.concatenate([self._kept, *self._pending]))
        self._pending, self._waiting = [], 0
        while len(self._kept) > self._most:
            self._halvings += 1
            self._kept = _sampled(self._kept, self._halvings)


@dataclass(frozen=True, slots=True)
class Shared:
    """Distinct rows that stand in both; `low` and `high` bound it where it is an estimate."""

    rows: int
    exact: bool
    low: int
    high: int


def shared(one: Sketch, other: Sketch) -> Shared:
    """How many distinct rows two splits have in common."""
    halvings = max(one.halvings, other.halvings)
    both = np.intersect1d(_sampled(one.hashes, halvings), _sampled(other.hashes, halvings), assume_unique=True)
    seen = len(both)
    if halvings == 0:
        return Shared(seen, True, seen, seen)
    spread = 1.96 * math.sqrt(seen * (1 - 0.5**halvings))  # each common row is in the sample by an even chance a bit
    low = max(seen - spread, 1 if seen else 0)
    high = seen + spread if seen else 3  # the rule of three, for a sample that has none
    return Shared(seen << halvings, False, math.floor(low * 2**halvings), math.ceil(high * 2**halvings))


def _sampled(hashes: Hashes, halvings: int) -> Hashes:
    return hashes if halvings == 0 else hashes[(hashes & np.uint64(2**halvings - 1)) == 0]
