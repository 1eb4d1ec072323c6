"""Evaluation templates: which scorers run on an asset of which task, and how the work is cut, done and put together.

assignment = Assignment(…)                                  # what is measured, on what, how it is cut
partial = score_shard(assignment, model, table, shard)      # any worker, any order, again after a crash
report = finish(assignment, partials)                       # the same partials give the same bytes

Only what a service needs to hand out work is imported here; `golden`, `shards` and `report` bring in the libraries that
do it, and are for the scoring processes. How a prompt is measured stands in the room `answers`.
"""

from __future__ import annotations

from services.evaluator.templates.assignment import (
    PROMPT_TEMPLATES,
    TEMPLATES,
    Assignment,
    GoldenSpec,
    PromptAssignment,
    Template,
    prompt_template,
    template,
)

__all__ = [
    "PROMPT_TEMPLATES",
    "TEMPLATES",
    "Assignment",
    "GoldenSpec",
    "PromptAssignment",
    "Template",
    "prompt_template",
    "template",
]
