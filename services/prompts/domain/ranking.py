"""Prompts ranked by what was measured of them. Pure.

Intervals decide, not values: two versions whose intervals overlap share a rank, and who was never measured has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranked(Generic[T]):
    """`rank` is None without evidence."""

    rank: int | None
    one: T
    measure: dict[str, Any] | None


def ranked(candidates: Iterable[tuple[T, dict[str, Any] | None]], measure: str) -> list[Ranked[T]]:
    """Best first. A version is one rank lower for each one that is better than it beyond doubt."""
    measured: list[tuple[T, dict[str, Any]]] = []
    without: list[Ranked[T]] = []
    for one, measures in candidates:
        found = (measures or {}).get(measure)
        if found is None:
            without.append(Ranked(None, one, None))
        else:
            measured.append((one, found))
    measured.sort(key=lambda row: -_good(row[1])[0])
    bounds = [_good(found) for _, found in measured]
    ranks = [1 + sum(low > high for _, low, _ in bounds) for _, _, high in bounds]
    with_rank = [Ranked(rank, one, found) for rank, (one, found) in zip(ranks, measured, strict=True)]
    return sorted(with_rank, key=lambda row: row.rank or 0) + without


def _good(found: dict[str, Any]) -> tuple[float, float, float]:
    """Value, low and high, so that more is better."""
    value, low, high = (float(found[name]) for name in ("value", "low", "high"))
    return (value, low, high) if found.get("higher_is_better", True) else (-value, -high, -low)


def default_measure(candidates: Iterable[dict[str, Any] | None]) -> str | None:
    """What most candidates were measured by; the first by name among equals."""
    counts: dict[str, int] = {}
    for measures in candidates:
        for name in measures or {}:
            counts[name] = counts.get(name, 0) + 1
    return min(counts, key=lambda name: (-counts[name], name), default=None)
