"""One shard's work: its rows through the model, checked and timed, into bytes that outlive the worker."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from services.evaluator.domain import Floats, Ints, Plan, Shard, Texts, Timings
from services.evaluator.errors import (
    ModelFailed,
    NotAProbability,
    PredictionNotFinite,
    PredictionShape,
    ShardsForeign,
    TaskMismatch,
)
from services.evaluator.models import Model
from services.evaluator.scorers import intervals, latency
from services.evaluator.templates.assignment import Assignment, template
from services.evaluator.templates.golden import class_indices, feature_matrix, groups, labelled, targets
from shared.ids import sha256

BATCH_ROWS = 512
SINGLE_CALLS = 1000
"""One-row calls an evaluation times in all, if they are quick."""
QUICK_S = 0.1
"""Seconds after which it stops as soon as the widest quantile's interval has both ends (368 calls for p99 at 0.95)."""
SINGLE_CALLS_S = 10.0
"""Seconds after which it stops anyway, for models that take long. Shards share all these limits."""
WARM_UP_CALLS = 3
GOLDEN_RATIO = (5**0.5 - 1) / 2
SUM_TOLERANCE = 1e-3
"""How far float32 probabilities of many classes may be from adding up to 1."""

Timer = Callable[[], float]


@dataclass(frozen=True, eq=False)
class Partial:
    """What one shard gave: for its n scored rows `truth` [n], `outputs` [n, k] and `sensitive` (see ScoredRows).

    `basis` is the assignment's digest. `classes` are the model's, empty for a regression.
    """

    basis: str
    shard: Shard
    classes: tuple[str, ...]
    truth: Floats
    outputs: Floats
    sensitive: Mapping[str, Texts]
    timings: Timings

    def to_bytes(self) -> bytes:
        """An Arrow IPC stream, what is no column in its metadata. The same partial gives the same bytes."""
        columns: dict[str, pa.Array] = {"truth": pa.array(self.truth)}
        columns |= {f"output.{k}": pa.array(self.outputs[:, k]) for k in range(self.outputs.shape[1])}
        columns |= {
            f"sensitive.{name}": pa.array(values.tolist(), pa.string()) for name, values in self.sensitive.items()
        }
        about = {
            "basis": self.basis,
            "shard": [self.shard.index, self.shard.start, self.shard.stop],
            "classes": self.classes,
            "outputs": self.outputs.shape[1],
            "single_ms": self.timings.single_ms.tolist(),
            "batch_ms": self.timings.batch_ms.tolist(),
            "batch_rows": self.timings.batch_rows.tolist(),
        }
        table = pa.table(columns).replace_schema_metadata({"partial": json.dumps(about)})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Partial:
        """Raises ShardsForeign for bytes that are no partial."""
        try:
            table = pa.ipc.open_stream(data).read_all()
            about = json.loads(table.schema.metadata[b"partial"])
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise ShardsForeign("the bytes of a shard are not what a shard writes; run it again") from error
        prefix = "sensitive."
        return cls(
            basis=about["basis"],
            shard=Shard(*about["shard"]),
            classes=tuple(about["classes"]),
            truth=table["truth"].to_numpy(),
            outputs=np.column_stack([table[f"output.{k}"].to_numpy() for k in range(about["outputs"])]),
            sensitive={
                name.removeprefix(prefix): np.array(table[name].to_pylist(), dtype=np.str_)
                for name in table.column_names
                if name.startswith(prefix)
            },
            timings=Timings(
                np.array(about["single_ms"], dtype=np.float64),
                np.array(about["batch_ms"], dtype=np.float64),
                np.array(about["batch_rows"], dtype=np.int64),
            ),
        )

    @property
    def digest(self) -> str:
        return sha256(self.to_bytes())


def score_shard(
    assignment: Assignment, model: Model, table: pa.Table, shard: Shard, timer: Timer = time.perf_counter
) -> Partial:
    """Run the model on the shard's rows of the golden set `table` (the whole of it; the shard says which rows).

    `timer` gives seconds. Rows without a label are left out and lower the coverage; anything else that is wrong with a
    row or a prediction raises EvaluationError, as a model that cannot predict one row has no score.
    """
    task = template(assignment.template).task
    if model.task != task:
        raise TaskMismatch(f"the model does {model.task}, the template {assignment.template} measures {task}")
    if shard not in assignment.plan.shards or table.num_rows != assignment.plan.rows:
        raise ShardsForeign(f"shard {shard.index} or the {table.num_rows} rows are not those of the plan; plan anew")
    rows = labelled(table.slice(shard.start, shard.stop - shard.start), assignment.spec.label)
    label = assignment.spec.label
    truth = class_indices(rows, label, model.classes) if task == "classification" else targets(rows, label)
    features = feature_matrix(rows, model.features)
    sensitive = {column: groups(rows, column) for column in assignment.spec.sensitive}
    outputs, timings = _predict(model, features, assignment, timer)
    return Partial(assignment.basis, shard, model.classes, truth, outputs, sensitive, timings)


def _predict(model: Model, features: Floats, assignment: Assignment, timer: Timer) -> tuple[Floats, Timings]:
    """All rows in batches, then some of them one by one; both timed, every batch checked."""
    width = max(len(model.classes), 1)
    outputs, batch_ms, batch_rows = [np.empty((0, width))], [], []
    for start in range(0, len(features), BATCH_ROWS):
        batch = features[start : start + BATCH_ROWS]
        if start == 0:  # the first call pays for allocations that a served model pays once
            _called(model, batch[:1], timer)
        out, elapsed_ms = _called(model, batch, timer)
        outputs.append(_checked(model, out, len(batch)))
        batch_ms.append(elapsed_ms)
        batch_rows.append(len(batch))
    timings = Timings(
        _time_single_rows(model, features, assignment.plan, assignment.options.level, timer),
        np.array(batch_ms, dtype=np.float64),
        np.array(batch_rows, dtype=np.int64),
    )
    return np.concatenate(outputs), timings


def _time_single_rows(model: Model, features: Floats, plan: Plan, level: float, timer: Timer) -> Floats:
    """[m] milliseconds of one-row calls on rows spread evenly over the shard, wherever it stops."""
    shards = len(plan.shards)
    calls = min(len(features), -(-SINGLE_CALLS // shards))
    spread = np.linspace(0, max(len(features) - 1, 0), calls).astype(np.int64)
    picked = spread[_spread(calls)]
    for row in picked[:WARM_UP_CALLS]:
        _called(model, features[row : row + 1], timer)
    took_ms: list[float] = []
    enough, began = calls_needed(level) / shards, timer()
    for row in picked:
        took_ms.append(_called(model, features[row : row + 1], timer)[1])
        if timer() > began + (QUICK_S if len(took_ms) >= enough else SINGLE_CALLS_S) / shards:
            break
    return np.array(took_ms, dtype=np.float64)


def _spread(count: int) -> Ints:
    """[count] all places, in an order of which every beginning is spread evenly: multiples of the golden ratio."""
    return np.asarray(np.argsort(np.argsort(np.arange(count) * GOLDEN_RATIO % 1)), dtype=np.int64)


@cache
def calls_needed(level: float) -> int:
    """Timings that the interval of every quantile of latency_ms needs."""
    return max(intervals.rows_for_quantile(share, level) for share in latency.QUANTILES.values())


def _called(model: Model, rows: Floats, timer: Timer) -> tuple[Floats, float]:
    """What the model gives, and how many milliseconds it took."""
    started = timer()
    try:
        out = model.predict(rows)
    except Exception as error:  # whatever a model raises means that it failed
        raise ModelFailed(
            f"the model raised {type(error).__name__}: {str(error)[:200]}; try it on the golden set"
        ) from error
    return out, (timer() - started) * 1000


def _checked(model: Model, out: Floats, rows: int) -> Floats:
    """[rows, k] as float64, or an EvaluationError that says what is wrong with it."""
    out = np.asarray(out, dtype=np.float64)
    expected = (rows, max(len(model.classes), 1))
    if out.shape != expected:
        raise PredictionShape(f"the model returned predictions of shape {out.shape}, not {expected}; check its outputs")
    if not np.isfinite(out).all():
        bad = int((~np.isfinite(out)).any(axis=1).sum())
        raise PredictionNotFinite(f"the model returned NaN or infinity for {bad} of {rows} rows; that is no prediction")
    if model.task == "classification":
        if (out < -SUM_TOLERANCE).any() or (out > 1 + SUM_TOLERANCE).any():
            raise NotAProbability(
                "the model returned probabilities outside 0 to 1; submit one that gives probabilities"
            )
        if (np.abs(out.sum(axis=1) - 1) > SUM_TOLERANCE).any():
            raise NotAProbability("the model's probabilities do not add up to 1; submit one that gives probabilities")
        return np.clip(out, 0.0, 1.0)
    return out
