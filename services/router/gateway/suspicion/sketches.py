"""What is kept of inputs: vectors of features, simhashes of texts, and an estimate of how many were distinct. Pure."""

from __future__ import annotations

import re
from heapq import heappush, heappushpop
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

Vector = npt.NDArray[np.float32]

MOST_FEATURES = 64
MOST_CHARACTERS = 4000
SHINGLE = 3
NEAR_BITS = 7
"""Of 64: texts whose simhashes differ in no more are near-duplicates (about a tenth of their shingles differ)."""
SAME_SHARE = 0.05
"""Numbers that differ by less than this part of the larger one count as the same."""
NEAR_FEATURES = 8
"""Two vectors are near-duplicates when no more than one in so many of their features differ."""
BINS = 8
_WORD = re.compile(r"\w+")


def vector_of(features: bytes) -> Vector | None:
    """The row's `features`, as numbers in the order of names: texts and booleans become numbers, null is -1."""
    found = orjson.loads(features)
    if not isinstance(found, dict) or not found:
        return None
    return np.array([_number(found[name]) for name in sorted(found)[:MOST_FEATURES]], dtype=np.float32)


def _number(value: Any) -> float:
    if isinstance(value, bool | int | float):
        return max(-1e30, min(1e30, float(value)))
    return -1.0 if value is None else float(hash(str(value)) % 10_000)


def simhash(text: str) -> int:
    """64 bits, of the shingles of three words; texts that share most of them differ in few bits."""
    words = _WORD.findall(text[:MOST_CHARACTERS].lower())
    if not words:
        return 0
    shingles = {" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))}
    hashes = np.array([hash(one) & 0xFFFF_FFFF_FFFF_FFFF for one in shingles], dtype=np.uint64)
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1)
    packed = np.packbits(bits.sum(axis=0) * 2 > len(shingles))
    return int.from_bytes(packed.tobytes(), "big")


def near_texts(one: int, others: list[int]) -> list[int]:
    """Places of those that are near-duplicates of it."""
    return [place for place, other in enumerate(others) if (one ^ other).bit_count() <= NEAR_BITS]


def near_vectors(one: Vector, others: npt.NDArray[np.float32]) -> list[int]:
    """Places of those that are near-duplicates of it: rows of [n, features]."""
    scale = np.maximum(np.maximum(np.abs(others), np.abs(one)), 1.0)
    differing = (np.abs(others - one) > SAME_SHARE * scale).sum(axis=1)
    return [int(place) for place in np.flatnonzero(differing * NEAR_FEATURES <= len(one))]


def evenness(sample: npt.NDArray[np.float32]) -> float:
    """How evenly values fill their ranges: entropy over up to 8 equal bins, 1 is uniform; the mean over features.

    Features with fewer than 4 values say nothing. 0 where fewer than 3 features say something.
    """
    found = []
    for column in sample.T:
        bins = min(BINS, len(np.unique(column)))
        if bins < 4:
            continue
        counts, _ = np.histogram(column, bins=bins)
        shares = counts[counts > 0] / len(column)
        found.append(float(-(shares * np.log2(shares)).sum()) / log2(bins))
    return sum(found) / len(found) if len(found) >= 3 else 0.0


class Distinct:
    """How many distinct things were seen, by the least of their hashes (k minimum values, k = 256, about 6 % off)."""

    K = 256

    def __init__(self) -> None:
        self._heap: list[int] = []
        self._kept: set[int] = set()

    def add(self, digest: int) -> None:
        """`digest` is 64 bits, evenly spread."""
        if digest in self._kept:
            return
        if len(self._heap) < self.K:
            heappush(self._heap, -digest)
            self._kept.add(digest)
        elif digest < -self._heap[0]:
            self._kept.discard(-heappushpop(self._heap, -digest))
            self._kept.add(digest)

    @property
    def estimate(self) -> float:
        if len(self._heap) < self.K:
            return float(len(self._heap))
        return (self.K - 1) / (-self._heap[0] / 2**64)
