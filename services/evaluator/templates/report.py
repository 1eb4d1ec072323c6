"""The report: shards put together, every scorer run once, as canonical JSON with a digest that an approval binds to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from services.evaluator.domain import Insufficient, Measure, ScoredRows, Timings
from services.evaluator.errors import GoldenSetEmpty, LabelUnknown, ShardsForeign, ShardsIncomplete, SingleClass
from services.evaluator.scorers import SCORERS
from services.evaluator.templates.assignment import Assignment, template
from services.evaluator.templates.shards import Partial
from shared.ids import canonical, sha256

SCHEMA = "mintmark.evaluation-report/1"
SOFTWARE = ("lightgbm", "numpy", "onnxruntime", "scikit-learn", "scipy", "skops")


@dataclass(frozen=True, slots=True)
class Report:
    """All that an evaluation found. `content` is plain JSON; `measures` and `insufficient` are the findings in it."""

    content: Mapping[str, Any]
    measures: tuple[Measure, ...]
    insufficient: tuple[Insufficient, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return canonical(self.content)

    @property
    def digest(self) -> str:
        return sha256(self.to_bytes())


def finish(assignment: Assignment, partials: Iterable[Partial]) -> Report:
    """The report of a complete set of partials, in any order.

    Raises ShardsIncomplete or ShardsForeign when they are not exactly the plan's, GoldenSetEmpty when no row could be
    scored, SingleClass, and what the scorers raise. There is no report with a hole in it.
    """
    chosen, parts = template(assignment.template), _complete(assignment, partials)
    rows = _merged(assignment, parts)
    if rows.n == 0:
        raise GoldenSetEmpty()
    if rows.task == "classification" and len(np.unique(rows.labels)) < 2:
        only = rows.classes[int(rows.labels[0])]
        raise SingleClass(f"every row of the golden set has the label {only!r}; add rows of the other classes")
    findings = [finding for name in chosen.scorers for finding in SCORERS[name].score(rows, assignment.options)]
    measures = tuple(finding for finding in findings if isinstance(finding, Measure))
    insufficient = tuple(finding for finding in findings if isinstance(finding, Insufficient))
    content = {
        "schema": SCHEMA,
        "basis": assignment.basis,
        "model": assignment.model,
        "golden_set": assignment.golden_set,
        "template": chosen.name,
        "task": chosen.task,
        "label": assignment.spec.label,
        "sensitive": list(assignment.spec.sensitive),
        "classes": list(rows.classes),
        "positive": None if rows.positive is None else rows.classes[rows.positive],
        "options": asdict(assignment.options),
        "rows": rows.rows,
        "scored": rows.n,
        "without_label": rows.rows - rows.n,
        "shards": [{**asdict(part.shard), "digest": part.digest} for part in parts],
        "measures": [asdict(measure) for measure in measures],
        "insufficient": [asdict(finding) for finding in insufficient],
        "software": dict(_software()),
    }
    return Report(content, measures, insufficient)


@cache
def _software() -> Mapping[str, str]:
    """Versions of what measures; read once, as each is a file of its own to find and parse."""
    return {name: version(name) for name in SOFTWARE}


def _complete(assignment: Assignment, partials: Iterable[Partial]) -> list[Partial]:
    """The partials in the plan's order, each of its shards once."""
    parts = sorted(partials, key=lambda part: part.shard.index)
    if any(part.basis != assignment.basis for part in parts) or len({part.classes for part in parts}) > 1:
        raise ShardsForeign()
    if tuple(part.shard for part in parts) != assignment.plan.shards:
        found, needed = [part.shard.index for part in parts], len(assignment.plan.shards)
        raise ShardsIncomplete(f"the shards {found} are not the plan's {needed}, each once; run the missing ones")
    return parts


def _merged(assignment: Assignment, parts: list[Partial]) -> ScoredRows:
    if not parts:
        raise GoldenSetEmpty()
    classes = parts[0].classes
    return ScoredRows(
        task=template(assignment.template).task,
        truth=np.concatenate([part.truth for part in parts]),
        outputs=np.concatenate([part.outputs for part in parts]),
        rows=assignment.plan.rows,
        timings=Timings(
            np.concatenate([part.timings.single_ms for part in parts]),
            np.concatenate([part.timings.batch_ms for part in parts]),
            np.concatenate([part.timings.batch_rows for part in parts]),
        ),
        classes=classes,
        positive=_positive(assignment.spec.positive, classes),
        sensitive={
            column: np.concatenate([part.sensitive[column] for part in parts]) for column in assignment.spec.sensitive
        },
    )


def _positive(name: str | None, classes: tuple[str, ...]) -> int | None:
    """The class that means "selected": the named one, else the second of two, else none."""
    if name is None:
        return 1 if len(classes) == 2 else None
    if name not in classes:
        raise LabelUnknown(f"the positive label {name!r} is none of the model's classes {', '.join(classes[:10])}")
    return classes.index(name)
