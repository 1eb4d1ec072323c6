"""What it means that rows stand in two splits: which pairs are looked at, and how it is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from services.registry.datasets.sketches import Shared, Sketch
from services.registry.domain.lineage import Finding
from shared.events.base import AssetRef

ORDER = ("train", "validation", "test", "golden")
LEARNT = ("train", "validation")
"""Splits that a training run looks at."""


def pairs(splits: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each pair of splits once, what is learnt from first."""
    there = [split for split in ORDER if split in set(splits)]
    for number, one in enumerate(there):
        for other in there[number + 1 :]:
            yield one, other


def learnt(sketches: Mapping[str, Sketch]) -> list[str]:
    """The splits of a training set that a run has seen; all of it where it is not divided."""
    return [split for split in LEARNT if split in sketches] or list(sketches)


def measured(sketches: Mapping[str, Sketch]) -> list[str]:
    """The splits of a golden set that a version is measured on: `golden`, else `test`, else all of it."""
    for split in ("golden", "test"):
        if split in sketches:
            return [split]
    return list(sketches)


def finding(
    about: AssetRef, left: tuple[str, str, Sketch], right: tuple[str, str, Sketch], found: Shared, at: datetime
) -> Finding:
    """How many distinct rows of two splits (dataset, split, sketch) are the same, beside a version."""
    document = {
        "left": {"dataset": left[0], "split": left[1], "rows": left[2].rows, "distinct": left[2].distinct},
        "right": {"dataset": right[0], "split": right[1], "rows": right[2].rows, "distinct": right[2].distinct},
        "shared": found.rows,
        "exact": found.exact,
        "interval": [found.low, found.high],
        "share_of_right": round(found.rows / right[2].distinct, 6) if right[2].distinct else 0.0,
    }
    name = f"{about}/{left[0]}:{left[1]}~{right[0]}:{right[1]}"
    return Finding("overlap", name, about.urn, about.version, at, document)


def told(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Those that found something."""
    return [finding.document for finding in findings if finding.document["shared"]]
