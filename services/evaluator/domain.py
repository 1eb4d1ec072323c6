"""What a measurement is: rows with predictions in, measures with intervals out, work cut into shards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from services.evaluator.errors import MeasureUndefined

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Task = Literal["classification", "regression"]
# By name: the service plans and tells, and only its scoring processes load numpy.
Floats: TypeAlias = "npt.NDArray[np.float64]"
Ints: TypeAlias = "npt.NDArray[np.int64]"
Texts: TypeAlias = "npt.NDArray[np.str_]"

SIGNIFICANT_DIGITS = 12
"""Figures are kept to this many digits, so that the last bit of a sum (which depends on the CPU) is not in a digest."""

SHARD_ROWS = 4096
PROMPT_SHARD_ROWS = 64
"""Where a prompt is measured each row is a request to a model: a crash may cost so many of them."""


@dataclass(frozen=True, slots=True)
class Options:
    """How figures are made. `level` is the confidence level, `min_group` the fewest rows a group's figure rests on."""

    level: float = 0.95
    min_group: int = 100  # a Wilson interval of 100 rows is at most ±0.10 wide; fewer say next to nothing of a group

    def __post_init__(self) -> None:
        if not 0.5 <= self.level < 1:
            raise ValueError(f"the confidence level {self.level} is not from 0.5 to 1; use 0.95")
        if self.min_group < 1:
            raise ValueError(f"min_group {self.min_group} is not a positive number of rows")


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure with its confidence interval; `n` is how many rows it rests on, `method` names interval and source.

    `value`, `low` and `high` are in `unit` ("" is a plain ratio or loss, "ms" milliseconds, "rows/s").
    Raises MeasureUndefined when not finite, ValueError (a mistake of the scorer) when outside of its own interval.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    method: str
    unit: str = ""
    higher_is_better: bool = True
    level: float = 0.95
    note: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for number in (self.value, self.low, self.high)):
            raise MeasureUndefined(
                f"{self.name} would be {self.value} [{self.low}, {self.high}]; rescale the label and what is predicted"
            )
        for part in ("value", "low", "high"):
            object.__setattr__(self, part, rounded(getattr(self, part)))
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.name} is {self.value}, outside of its own interval [{self.low}, {self.high}]")


@dataclass(frozen=True, slots=True)
class Insufficient:
    """A figure that is not given, because `n` rows are fewer than the `needed` ones. It is not zero, and not a pass."""

    name: str
    n: int
    needed: int
    reason: str


Finding = Measure | Insufficient


@dataclass(frozen=True, slots=True, eq=False)
class Timings:
    """How long the model took. All in milliseconds of wall time on the machine that scored.

    `single_ms` [m]: one row a call. `batch_ms` [b], `batch_rows` [b]: calls with many rows.
    """

    single_ms: Floats
    batch_ms: Floats
    batch_rows: Ints


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Golden rows with what the model said of them; all that a scorer sees. Arrays are not to be changed.

    `truth` [n]: index into `classes`, or the target of a regression. `outputs` [n, k]: probabilities of the k classes,
    or [n, 1] the prediction. `sensitive`: column name -> [n] values as text. `rows` counts all rows of the golden set,
    so that rows - n of them could not be scored. `positive` is the class that "selected" means; None if k > 2.
    """

    task: Task
    truth: Floats
    outputs: Floats
    rows: int
    timings: Timings
    classes: tuple[str, ...] = ()
    positive: int | None = None
    sensitive: Mapping[str, Texts] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.truth)

    @cached_property
    def labels(self) -> Ints:
        """[n] the true class's index."""
        import numpy as np

        return self.truth.astype(np.int64)

    @cached_property
    def predicted(self) -> Ints:
        """[n] the index of the most probable class; the first of equals, as scikit-learn does."""
        import numpy as np

        return np.asarray(np.argmax(self.outputs, axis=1), dtype=np.int64)

    @cached_property
    def errors(self) -> Floats:
        """[n] prediction minus target of a regression."""
        return self.outputs[:, 0] - self.truth


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked about one golden row: its number (from 1) and OpenAI's chat messages."""

    row: int
    messages: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question. Without `text` there was no answer, `why` says the reason; that is never a score.

    `latency_ms` is the wall time of the request that was answered, `tokens` what the model says that its answer took.
    """

    row: int
    text: str | None = None
    latency_ms: float = 0.0
    tokens: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredRows:
    """Golden rows with what a model made of a prompt; all that a scorer of prompts sees. Arrays are not to be changed.

    `exact` [n]: 1 where the answer is the expected one, else 0. `f1` [n]: words in common, 0 to 1. `latency_ms` [n].
    `tokens` [n]: NaN where nobody said. `rows` counts all rows of the golden set; rows - n of them have no score.
    """

    exact: Floats
    f1: Floats
    latency_ms: Floats
    tokens: Floats
    rows: int

    @property
    def n(self) -> int:
        return len(self.exact)


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows start <= row < stop of the golden set; what one worker claims, and a crash can lose."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a golden set of `rows` rows is cut. The same rows and shard size give the same plan everywhere."""

    rows: int
    shards: tuple[Shard, ...]


File = tuple[bytes, str]
"""Content and format of one file of a golden set."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model's bytes, its format, the names of its inputs in order, and its task."""

    content: bytes
    format: str
    features: tuple[str, ...]
    task: Task


@dataclass(frozen=True, slots=True)
class Finished:
    """A report's bytes, its measures as plain values, the golden set's rows, and how many could not be scored.

    `errors` are the rows without a label, and where a prompt is measured those without an answer. A row that a model
    cannot predict is not among them: then there is no report at all.
    """

    report: bytes
    measures: tuple[dict[str, Any], ...]
    rows: int
    errors: int


def plan(rows: int, shard_rows: int = SHARD_ROWS) -> Plan:
    """Cut `rows` rows into shards of at most `shard_rows`."""
    if rows < 0 or shard_rows < 1:
        raise ValueError(f"{rows} rows cannot be cut into shards of {shard_rows}; both must be positive")
    starts = range(0, rows, shard_rows)
    return Plan(rows, tuple(Shard(index, start, min(start + shard_rows, rows)) for index, start in enumerate(starts)))


def prompt_plan(rows: int) -> Plan:
    """Cut into shards of at most PROMPT_SHARD_ROWS, all of about the same size: none is so small that one row of it is
    most of it."""
    shards = -(-rows // PROMPT_SHARD_ROWS)
    return plan(rows, -(-rows // max(shards, 1)) or 1)


def rounded(number: float) -> float:
    """The number to SIGNIFICANT_DIGITS digits; -0.0 becomes 0.0."""
    return float(f"{number:.{SIGNIFICANT_DIGITS}g}") + 0.0


def class_name(label: Any) -> str:
    """The one name of a class label: 1, 1.0, True and "1" are all "1", as files and models disagree about the type."""
    import numpy as np

    if isinstance(label, (bool, np.bool_)):
        return str(int(label))
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        return str(int(label))
    return str(label)
