"""What runs in the scoring processes: bytes in, bytes out. A model that dies takes one of these along only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache

import pyarrow as pa

from services.evaluator.domain import SHARD_ROWS, File, Finished, ModelFile, Shard, plan
from services.evaluator.errors import GoldenSetUnreadable
from services.evaluator.models import Model, load
from services.evaluator.templates import Assignment
from services.evaluator.templates.golden import read_golden_set
from services.evaluator.templates.report import finish
from services.evaluator.templates.shards import Partial, score_shard


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
