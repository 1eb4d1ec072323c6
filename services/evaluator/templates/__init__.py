"""Evaluation templates: which scorers run on an asset of which task, and how the work is cut, done and put together.

assignment = Assignment(…)                                  # what is measured, on what, how it is cut
partial = score_shard(assignment, model, table, shard)      # any worker, any order, again after a crash
report = finish(assignment, partials)                       # the same partials give the same bytes
"""

from __future__ import annotations

from services.evaluator.templates.assignment import TEMPLATES, Assignment, GoldenSpec, Template, template
from services.evaluator.templates.golden import read_golden_set
from services.evaluator.templates.report import Report, finish
from services.evaluator.templates.shards import Partial, score_shard

__all__ = [
    "TEMPLATES",
    "Assignment",
    "GoldenSpec",
    "Partial",
    "Report",
    "Template",
    "finish",
    "read_golden_set",
    "score_shard",
    "template",
]
