"""What is kept of rows and their labels: sums and histograms that add up, whatever order they come in.

Everything here is a sum, so `merge` is associative and commutative, and a correction is an aggregate with negative
counts: what was said before is taken away, what is said now is added.

Adding up needs no numpy, and most processes only add up, so what counts rows imports it by itself.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID
from zlib import crc32

import orjson

from services.router.comparison.buckets import LEAST_MS, counted, latency_buckets, score_buckets

if TYPE_CHECKING:
    from services.router.comparison.buckets import Floats, Ints

_K = TypeVar("_K")

SLICES = 32
"""Units are dealt into so many slices; how much sums differ between slices says how alike one unit's requests are."""

BY_WEIGHT = "weight"
"""The route of a row whose version was drawn by the group's weights, and answered or failed."""
CHARGED = "drawn"
"""Of what is counted beside a row: its version was drawn by weight, and another one answered in its place."""
CACHED = "cached"
"""Of a row whose version was drawn by weight, and had answered the very same request before. Sums of long ago have
`cache`, which rules may have chosen as well."""
EXPERIMENT = (BY_WEIGHT, CHARGED)
"""Only these compare versions: chance chose the version, and what is counted is how it did."""
DRAWS = (BY_WEIGHT, CHARGED, CACHED)
"""Every request whose version was drawn by weight, once."""

POSITIVE = "1"
OTHER = "(other)"
_CLASS = re.compile(r"-?\d{1,3}|[^\W\d][\w .:/-]{0,31}")
MOST_PAIRS = 2_500
MOST_METRICS = 200
BUSINESS = "metric:"
LARGEST = 1e100
"""A number beyond it is no value: its square would be infinite, which no sum recovers from and JSON does not hold."""


class Outcome(NamedTuple):
    """One answered or failed request. `asset` is None where it was refused before a version was chosen.

    `route` is one of DRAWS, or what else chose the version: `shadow`, `rule`, `failover`. `cost` is in USD; its sums
    are floats and for comparing, not for billing.
    """

    request_id: UUID
    at: datetime
    revision: int
    asset: str | None
    version: int | None
    digest: str | None
    unit: str
    status: int
    error_code: str | None
    latency_ms: float
    score: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: Decimal | float | None = None
    route: str = BY_WEIGHT


class Said(NamedTuple):
    """A word about a request whose row is known: a true label as text, or another metric's number."""

    outcome: Outcome
    prediction: str | None
    metric: str
    value: float | None
    label: str | None


class Key(NamedTuple):
    """What rows must share to share an aggregate: a minute, the weights in force, the version, how it was chosen."""

    start: datetime
    revision: int
    asset: str | None
    version: int | None
    digest: str | None
    route: str


class Moments(NamedTuple):
    """Count, sum and sum of squares: enough for a mean and its variance, and they add up."""

    n: float = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.n

    @property
    def variance(self) -> float:
        """Unbiased; 0 below two values. Cancellation costs digits only where the mean is 1e6 deviations from 0."""
        return max(0.0, (self.squares - self.total**2 / self.n) / (self.n - 1)) if self.n > 1 else 0.0

    def plus(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)


class Slices(NamedTuple):
    """Count and sum in each slice of units, each of length SLICES."""

    n: tuple[float, ...]
    total: tuple[float, ...]

    def plus(self, other: Slices) -> Slices:
        n = tuple(map(sum, zip(self.n, other.n, strict=True)))
        return Slices(n, tuple(map(sum, zip(self.total, other.total, strict=True))))


@dataclass(slots=True)
class Aggregate:
    """Sums over some rows. Moments and slices are by metric, histograms by what they are of.

    Histograms: `latency` (ms, of answered rows), `score`, and of labelled rows `positive` and `negative` (scores of
    either class). `confusion` counts (prediction, true label), where both are names of classes.
    """

    n: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    slices: dict[str, Slices] = field(default_factory=dict)
    histograms: dict[str, dict[int, int]] = field(default_factory=dict)
    confusion: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, other: Aggregate) -> None:
        """Take the other's sums in. What comes to nothing is dropped."""
        self.n += other.n
        _add_counts(self.errors, other.errors)
        _add_counts(self.confusion, other.confusion)
        for metric, moments in other.moments.items():
            self.moments[metric] = moments.plus(self.moments.get(metric, Moments()))
        for metric, slices in other.slices.items():
            self.slices[metric] = slices.plus(self.slices[metric]) if metric in self.slices else slices
        for name, histogram in other.histograms.items():
            _add_counts(self.histograms.setdefault(name, {}), histogram)

    def measure(self, metric: str, values: Floats, slices: Ints) -> None:
        """Take in [n] values of a metric, with the slice that each one's unit is in; see LARGEST. NaN is no value."""
        import numpy as np

        known = np.abs(values) <= LARGEST
        if not known.all():
            values, slices = values[known], slices[known]
        if not len(values):
            return
        moments = Moments(len(values), float(values.sum()), float(np.square(values).sum()))
        self.moments[metric] = moments.plus(self.moments.get(metric, Moments()))
        counts = np.bincount(slices, minlength=SLICES)
        sums = np.bincount(slices, weights=values, minlength=SLICES)
        found = Slices(tuple(counts.tolist()), tuple(sums.tolist()))
        self.slices[metric] = found.plus(self.slices[metric]) if metric in self.slices else found

    def bounded(self) -> Aggregate:
        """The same with at most MOST_PAIRS pairs of classes and MOST_METRICS business metrics: others are set aside."""
        if len(self.confusion) > MOST_PAIRS:
            kept = sorted(self.confusion.items(), key=lambda one: -one[1])[: MOST_PAIRS - 1]
            rest = sum(self.confusion.values()) - sum(count for _, count in kept)
            self.confusion = dict(kept)
            _add_counts(self.confusion, {(OTHER, OTHER): rest})
        business = sorted(name for name in self.moments if name.startswith(BUSINESS))
        for name in business[MOST_METRICS:]:
            del self.moments[name]
            self.slices.pop(name, None)
        return self

    def dumped(self) -> str:
        """As JSON text: names are short because there are many of these."""
        return orjson.dumps(
            {
                "n": self.n,
                "e": self.errors,
                "m": {name: tuple(sums) for name, sums in self.moments.items()},
                "s": {name: tuple(both) for name, both in self.slices.items()},
                "h": {name: (list(counts), list(counts.values())) for name, counts in self.histograms.items()},
                "c": [(*pair, count) for pair, count in self.confusion.items()],
            }
        ).decode()

    @classmethod
    def loaded(cls, text: str | bytes) -> Aggregate:
        said: dict[str, Any] = orjson.loads(text)
        return cls(
            n=said["n"],
            errors=said["e"],
            moments={name: Moments(*sums) for name, sums in said["m"].items()},
            slices={name: Slices(tuple(n), tuple(total)) for name, (n, total) in said["s"].items()},
            histograms={name: dict(zip(*pair, strict=True)) for name, pair in said["h"].items()},
            confusion={(prediction, label): count for prediction, label, count in said["c"]},
        )


def merge(*parts: Aggregate) -> Aggregate:
    """The aggregate of all their rows."""
    whole = Aggregate()
    for part in parts:
        whole.add(part)
    return whole


def aggregate(rows: Sequence[Outcome]) -> dict[Key, Aggregate]:
    """Rows to one aggregate a minute, revision, version and route; about a microsecond a row."""
    members: defaultdict[tuple[Any, ...], list[Outcome]] = defaultdict(list)
    for row in rows:
        # Plain attributes of the minute: making a datetime and a Key for every row would cost more than all sums.
        at = row[1]
        members[at.minute, at.hour, at.day, row[2], row[3], row[4], row[5], row[14], at.month, at.year].append(row)
    return {_key(found[0]): _of_rows(found) for found in members.values()}


def judged(said: Iterable[Said], sign: int = 1) -> dict[Key, Aggregate]:
    """Words to the aggregates that they add to those of their rows; with sign -1, what they take away again.

    A label of a failed row says nothing about its version and adds nothing.
    """
    by_key: defaultdict[Key, list[Said]] = defaultdict(list)
    for word in said:
        by_key[_key(word.outcome)].append(word)
    found = {key: _of_words(words) for key, words in by_key.items()}
    return found if sign > 0 else {key: _negated(part) for key, part in found.items()}


def slice_of(unit: str) -> int:
    """Independent of the unit's bucket, which decides its version; the same in every process."""
    return crc32(unit.encode("utf-8", "surrogatepass")) % SLICES


def _key(row: Outcome) -> Key:
    minute = row.at.replace(second=0, microsecond=0)
    return Key(minute, row.revision, row.asset, row.version, row.digest, row.route)


def _of_rows(rows: Sequence[Outcome]) -> Aggregate:
    import numpy as np

    found = Aggregate(n=len(rows))
    columns = dict(zip(Outcome._fields, zip(*rows, strict=True), strict=True))
    slices = np.array([crc32(unit.encode("utf-8", "surrogatepass")) for unit in columns["unit"]]) % SLICES
    statuses = np.array(columns["status"])
    answered = statuses < 400
    found.measure("error_rate", (~answered).astype(np.float64), slices)
    for place in np.flatnonzero(~answered).tolist():
        name = columns["error_code"][place] or f"{columns['status'][place] // 100}xx"
        found.errors[name] = found.errors.get(name, 0) + 1
    latencies = np.array(columns["latency_ms"], dtype=np.float64)[answered]
    if len(latencies):
        found.histograms["latency"] = counted(latency_buckets(latencies))
        found.measure("latency", np.log(np.maximum(latencies, LEAST_MS)), slices[answered])
    for metric in ("score", "tokens_in", "tokens_out", "cost"):
        values = np.array(columns[metric], dtype=np.float64)  # None becomes NaN
        values[~(np.isfinite(values) & answered)] = np.nan
        found.measure(metric, values, slices)
        if metric == "score" and not np.isnan(values).all():
            found.histograms["score"] = counted(score_buckets(values[~np.isnan(values)]))
    return found


def _of_words(words: Sequence[Said]) -> Aggregate:
    import numpy as np

    found = Aggregate()
    values: defaultdict[str, tuple[list[float], list[int]]] = defaultdict(lambda: ([], []))

    def say(metric: str, value: float, of: Outcome) -> None:
        numbers, slices = values[metric]
        numbers.append(value)
        slices.append(slice_of(of.unit))

    for row, prediction, metric, value, label in words:
        if metric != "label":
            if value is not None and math.isfinite(value):
                say(BUSINESS + metric, value, row)
        elif row.status < 400 and label is not None:
            say("labelled", 1.0, row)
            if prediction is not None:
                say("accuracy", float(prediction == label), row)
                pair = class_name(prediction), class_name(label)
                found.confusion[pair] = found.confusion.get(pair, 0) + 1
            if row.score is not None and label in ("0", POSITIVE) and math.isfinite(row.score):
                say("positive" if label == POSITIVE else "negative", row.score, row)
                if 0 <= row.score <= 1:
                    p = row.score if label == POSITIVE else 1 - row.score
                    say("log_loss", -math.log(max(p, 1e-15)), row)
                    say("brier", (1 - p) ** 2, row)
    for metric, (numbers, slices) in values.items():
        if metric in ("positive", "negative"):
            found.histograms[metric] = counted(score_buckets(np.array(numbers)))
        else:
            found.measure(metric, np.array(numbers), np.array(slices))
    return found


def class_name(text: str) -> str:
    """The text where it can name a class; numbers and free text have no confusion matrix."""
    return text if _CLASS.fullmatch(text) else OTHER


def _negated(part: Aggregate) -> Aggregate:
    return Aggregate(
        n=-part.n,
        errors={name: -count for name, count in part.errors.items()},
        moments={name: Moments(*(-value for value in sums)) for name, sums in part.moments.items()},
        slices={
            name: Slices(tuple(-value for value in both.n), tuple(-value for value in both.total))
            for name, both in part.slices.items()
        },
        histograms={name: {at: -count for at, count in one.items()} for name, one in part.histograms.items()},
        confusion={pair: -count for pair, count in part.confusion.items()},
    )


def _add_counts(into: dict[_K, int], more: Mapping[_K, int]) -> None:
    for key, count in more.items():
        left = into.get(key, 0) + count
        if left:
            into[key] = left
        else:
            into.pop(key, None)
