"""The report of a prompt's evaluation, as canonical JSON: measures, what was asked, which rows were wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from services.evaluator.answers.grading import MOST_QUOTED, PromptPartial
from services.evaluator.domain import AnsweredRows, Insufficient, Measure
from services.evaluator.errors import AnswersRefused, GoldenSetEmpty, ShardsForeign, ShardsIncomplete
from services.evaluator.scorers import ANSWER_SCORERS
from services.evaluator.templates.assignment import PromptAssignment, prompt_template
from shared.ids import canonical

SCHEMA = "mintmark.prompt-evaluation-report/1"
SOFTWARE = ("jinja2", "numpy", "scipy")
MOST_WRONG = 100


@dataclass(frozen=True, slots=True)
class PromptReport:
    """All that an evaluation of a prompt found; `errors` are the rows without a score."""

    content: dict[str, Any]
    measures: tuple[Measure, ...]
    errors: int

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return canonical(self.content)


def finish(assignment: PromptAssignment, partials: Iterable[PromptPartial]) -> PromptReport:
    """The report of a complete set of partials, in any order.

    Raises ShardsIncomplete or ShardsForeign when they are not exactly the plan's, GoldenSetEmpty when no row has a
    label, AnswersRefused when more than half of those that have one got no answer.
    """
    parts = _complete(assignment, partials)
    graded = [one for part in parts for one in part.graded]
    unanswered = sum((Counter(part.unanswered) for part in parts), Counter[str]())
    missing = unanswered.total()
    if not graded and not missing:
        raise GoldenSetEmpty()
    if missing > len(graded):
        raise AnswersRefused.told(assignment.model, unanswered, len(graded) + missing)
    rows = AnsweredRows(
        exact=np.array([one.exact for one in graded]),
        f1=np.array([one.f1 for one in graded]),
        latency_ms=np.array([one.latency_ms for one in graded]),
        tokens=np.array([np.nan if one.tokens is None else one.tokens for one in graded], dtype=np.float64),
        rows=assignment.plan.rows,
    )
    findings = [
        finding
        for name in prompt_template(assignment.template)
        for finding in ANSWER_SCORERS[name].score(rows, assignment.options)
    ]
    measures = tuple(finding for finding in findings if isinstance(finding, Measure))
    wrong = [one.row for one in graded if not one.exact]
    content = {
        "schema": SCHEMA,
        "basis": assignment.basis,
        "prompt": assignment.prompt,
        "golden_set": assignment.golden_set,
        "template": assignment.template,
        "label": assignment.label,
        "model": assignment.model,
        "request": {"temperature": 0, "max_tokens": assignment.max_tokens},
        "options": asdict(assignment.options),
        "rows": rows.rows,
        "scored": rows.n,
        "without_label": sum(part.without_label for part in parts),
        "unanswered": dict(sorted(unanswered.items())),
        "wrong": {
            "count": len(wrong),
            "rows": wrong[:MOST_WRONG],
            "quoted": [one for part in parts for one in part.quoted][:MOST_QUOTED],
        },
        "shards": [{**asdict(part.shard), "digest": part.digest} for part in parts],
        "measures": [asdict(measure) for measure in measures],
        "insufficient": [asdict(finding) for finding in findings if isinstance(finding, Insufficient)],
        "software": {name: version(name) for name in SOFTWARE},
    }
    return PromptReport(content, measures, rows.rows - rows.n)


def _complete(assignment: PromptAssignment, partials: Iterable[PromptPartial]) -> list[PromptPartial]:
    parts = sorted(partials, key=lambda part: part.shard.index)
    if any(part.basis != assignment.basis for part in parts):
        raise ShardsForeign()
    if tuple(part.shard for part in parts) != assignment.plan.shards:
        found, needed = [part.shard.index for part in parts], len(assignment.plan.shards)
        raise ShardsIncomplete(f"the shards {found} are not the plan's {needed}, each once; run the missing ones")
    return parts
