"""What runs in the scoring processes: bytes in, bytes out. A model that dies takes one of these along only."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from services.evaluator.domain import Shard, Task
from services.evaluator.errors import GoldenSetUnreadable
from services.evaluator.models import Model, load
from services.evaluator.templates import Assignment, Partial, finish, read_golden_set, score_shard

File = tuple[bytes, str]
"""Content and format of one file of a golden set."""

PARENT_WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model's bytes, its format, the names of its inputs in order, and its task."""

    content: bytes
    format: str
    features: tuple[str, ...]
    task: Task


@dataclass(frozen=True, slots=True)
class Finished:
    """A report's bytes, and its measures as plain values."""

    report: bytes
    measures: tuple[dict[str, Any], ...]
    errors: int


def end_with_parent() -> None:
    """Initializer of a scoring process: when the service is killed, this ends too."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def warm_up() -> None:
    """Nothing: by the time it runs, the libraries are imported."""


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
