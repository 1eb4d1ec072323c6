"""What runs in the scoring processes: bytes in, bytes out. A model that dies takes one of these along only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

import pyarrow as pa

from services.evaluator.domain import File, Finished, ModelFile, Shard
from services.evaluator.errors import GoldenSetUnreadable
from services.evaluator.models import Model, load
from services.evaluator.templates import Assignment
from services.evaluator.templates.golden import read_golden_set
from services.evaluator.templates.report import finish
from services.evaluator.templates.shards import Partial, score_shard


def count_rows(files: Sequence[File]) -> int:
    """Rows of the golden set. Raises EvaluationError."""
    return int(_table(tuple(files)).num_rows)


def score(assignment: Assignment, model: ModelFile, files: Sequence[File], shard: Shard) -> bytes:
    """One shard's partial result. Raises EvaluationError."""
    partial = score_shard(assignment, _model(model), _table(tuple(files)), shard)
    return partial.to_bytes()


def report(assignment: Assignment, partials: Sequence[bytes]) -> Finished:
    """All shards put together. Raises EvaluationError."""
    made = finish(assignment, [Partial.from_bytes(part) for part in partials])
    return Finished(made.to_bytes(), tuple(asdict(measure) for measure in made.measures), 0)


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
