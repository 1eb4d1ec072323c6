"""What runs in the scoring processes: bytes in, bytes out. A model that dies takes one of these along only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from services.evaluator.domain import SHARD_ROWS, Answer, File, Finished, ModelFile, Question, Shard, plan
from services.evaluator.errors import GoldenSetUnreadable
from services.evaluator.models import Model, load
from services.evaluator.templates import Assignment, PromptAssignment
from services.evaluator.templates.golden import read_golden_set
from services.evaluator.templates.report import finish
from services.evaluator.templates.shards import Partial, score_shard

if TYPE_CHECKING:
    from services.evaluator.answers.rendering import Prompt

READING_CPU_S = 2.0


def begin(assignment: Assignment, model: ModelFile, files: Sequence[File]) -> Finished | int:
    """The whole report, when one shard holds all rows of the golden set; else how many rows are to be cut into shards.

    Only here are the rows known, so the plan of `assignment` is made here. Raises EvaluationError.
    """
    rows = int(_table(tuple(files)).num_rows)
    planned = replace(assignment, plan=plan(rows, SHARD_ROWS))
    if len(planned.plan.shards) != 1:
        return rows
    return report(planned, [score(planned, model, files, planned.plan.shards[0])])


def score(assignment: Assignment, model: ModelFile, files: Sequence[File], shard: Shard) -> bytes:
    """One shard's partial result. Raises EvaluationError."""
    partial = score_shard(assignment, _model(model), _table(tuple(files)), shard)
    return partial.to_bytes()


def report(assignment: Assignment, partials: Sequence[bytes]) -> Finished:
    """All shards put together. Raises EvaluationError."""
    made = finish(assignment, [Partial.from_bytes(part) for part in partials])
    measures = tuple(asdict(measure) for measure in made.measures)
    return Finished(made.to_bytes(), measures, assignment.plan.rows, made.content["without_label"])


# Prompts. What renders them is imported when the first one is: models need neither jinja2 nor jsonschema.


def begin_prompt(assignment: PromptAssignment, prompt: bytes, files: Sequence[File]) -> int:
    """How many rows the golden set has, when the prompt can be rendered with its columns. Raises EvaluationError."""
    from services.evaluator.answers import golden

    rows, found = golden.read_rows(tuple(files)), _prompt(prompt)
    golden.check(rows, assignment.label, found.variables, found.required)
    return len(rows)


def render(assignment: PromptAssignment, prompt: bytes, files: Sequence[File], shard: Shard) -> list[Question]:
    """What a model is to be asked for one shard. Raises EvaluationError."""
    from services.evaluator.answers import golden, grading

    return grading.questions(assignment, _prompt(prompt), golden.read_rows(tuple(files)), shard)


def grade(assignment: PromptAssignment, files: Sequence[File], shard: Shard, answers: Sequence[Answer]) -> bytes:
    """One shard's partial result. Raises EvaluationError."""
    from services.evaluator.answers import golden, grading

    return grading.grade(assignment, golden.read_rows(tuple(files)), shard, answers).to_bytes()


def report_prompt(assignment: PromptAssignment, partials: Sequence[bytes]) -> Finished:
    """All shards of a prompt's evaluation put together. Raises EvaluationError."""
    from services.evaluator.answers.grading import PromptPartial
    from services.evaluator.answers.report import finish as finish_prompt

    made = finish_prompt(assignment, [PromptPartial.from_bytes(part) for part in partials])
    measures = tuple(asdict(measure) for measure in made.measures)
    return Finished(made.to_bytes(), measures, assignment.plan.rows, made.errors)


def _prompt(content: bytes) -> Prompt:
    from services.evaluator.answers.bounds import bounded
    from services.evaluator.answers.rendering import Prompt

    with bounded(READING_CPU_S):  # its schemas are a stranger's, too
        return Prompt.read(content)


@lru_cache(maxsize=2)
def _table(files: tuple[File, ...]) -> pa.Table:
    tables = [read_golden_set(content, format) for content, format in files]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise GoldenSetUnreadable(f"the golden set's files do not have the same columns: {str(error)[:200]}") from error


@lru_cache(maxsize=2)
def _model(model: ModelFile) -> Model:
    return load(model.content, model.format, features=model.features or None, task=model.task)
