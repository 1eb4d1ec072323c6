"""Sticky splits of a label: which units get another label's version. Pure.

A label's units fall into 10,000 buckets. Each arm owns some of them, the label itself the rest. A change moves only the
buckets that it must: an arm that grows keeps what it had, so a ramp never sends anybody back and forth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from services.prompts.errors import SplitRefused

BUCKETS = 10_000
Ranges = list[list[int]]


def bucket_of(name: str, label: str, unit: str) -> int:
    """blake2b and not `hash()`: the same unit lands in the same bucket in every process and after every restart."""
    digest = hashlib.blake2b(f"{name}\x1f{label}\x1f{unit}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def arm_of(arms: Mapping[str, Ranges], bucket: int) -> str | None:
    """The label whose version the bucket gets; None is the label that was asked for."""
    for label, ranges in arms.items():
        if any(start <= bucket < end for start, end in ranges):
            return label
    return None


def spread(before: Mapping[str, Ranges], wanted: Mapping[str, int]) -> dict[str, Ranges]:
    """The arms with as many buckets as wanted, each keeping what it can of what it had. Raises SplitRefused."""
    if any(size < 1 for size in wanted.values()) or sum(wanted.values()) > BUCKETS:
        raise SplitRefused(f"shares are whole numbers from 1 that come to at most {BUCKETS} together")
    kept = {label: _members(before.get(label, []))[:size] for label, size in wanted.items()}
    taken = {bucket for members in kept.values() for bucket in members}
    free = iter([bucket for bucket in range(BUCKETS) if bucket not in taken])
    return {
        label: _ranges(sorted([*members, *(next(free) for _ in range(wanted[label] - len(members)))]))
        for label, members in kept.items()
    }


def size(ranges: Ranges) -> int:
    return sum(end - start for start, end in ranges)


def _members(ranges: Ranges) -> list[int]:
    return [bucket for start, end in ranges for bucket in range(start, end)]


def _ranges(members: list[int]) -> Ranges:
    ranges: Ranges = []
    for bucket in members:
        if ranges and ranges[-1][1] == bucket:
            ranges[-1][1] = bucket + 1
        else:
            ranges.append([bucket, bucket + 1])
    return ranges
