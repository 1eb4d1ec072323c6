"""What a ramp is to do, as data: the steps that users of Argo Rollouts know, with bounds in place of expressions.

Differences from Argo: an analysis reads intervals that are valid at every look (comparison/differences.py), so one
that is not conclusive yet is no failure; by default it is waited for, and it never counts as a success.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    model_validator,
)
from pydantic.alias_generators import to_camel

from services.router.comparison.estimates import metric_of
from shared.events.base import Digest, Urn

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
LONGEST = timedelta(days=90)
QUANTILES = {"latency_p50": 0.5, "latency_p95": 0.95, "latency_p99": 0.99}


def duration(said: Any) -> Any:
    """Seconds as a number, or a text such as `90s`, `10m`, `1h30m`, `2d`."""
    if isinstance(said, bool) or not isinstance(said, int | float | str):
        return said
    if isinstance(said, str):
        parts = _PART.findall(said)
        if not parts or "".join(number + unit for number, unit in parts) != said:
            raise ValueError("a duration is a number of seconds, or a text such as 90s, 10m, 1h30m, 2d")
        said = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not math.isfinite(said) or not 0 <= said <= LONGEST.total_seconds():
        raise ValueError("a duration lies between 0 and 90 days")
    return timedelta(seconds=said)


Duration = Annotated[timedelta, BeforeValidator(duration), PlainSerializer(lambda value: value.total_seconds())]
Percent = Annotated[float, Field(ge=0, le=100)]


class Part(BaseModel):
    """A part of a plan. Frozen; a field that is not known is refused, since it may be a misspelt one."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )


class Asset(Part):
    """A version; with its digest, it must be the one that is deployed."""

    urn: Urn
    version: int = Field(ge=1, le=2**31 - 1)
    digest: Digest | None = None


class Bounds(Part):
    """At least one of the two; both inclusive."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("bounds need a min, a max, or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self

    def hold(self, low: float, high: float) -> bool:
        """The whole interval lies within."""
        return (self.min is None or low >= self.min) and (self.max is None or high <= self.max)

    def exclude(self, low: float, high: float) -> bool:
        """The whole interval lies outside."""
        return (self.min is not None and high < self.min) or (self.max is not None and low > self.max)


class Analysis(Part):
    """A metric that is measured every `interval`.

    `of` difference: challenger minus champion (of `latency` the factor minus one: 0.1 is 10 % slower); of challenger:
    its own value. A measurement succeeds when its whole interval is within `success`, fails when the whole interval is
    outside, or within `failure` where that is given, and is inconclusive otherwise. After `count` successes the
    analysis is over; more than `failureLimit` failures end the ramp with a rollback, more than `inconclusiveLimit`
    inconclusive ones (without one: never) pause it.
    """

    metric: str = Field(max_length=120)
    of: Literal["difference", "challenger"] = "difference"
    success: Bounds
    failure: Bounds | None = None
    interval: Duration = timedelta(minutes=1)
    initial_delay: Duration = timedelta(0)
    count: int = Field(default=1, ge=1, le=1_000)
    failure_limit: int = Field(default=0, ge=0, le=1_000)
    inconclusive_limit: int | None = Field(default=None, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.metric in QUANTILES:
            if self.of != "challenger":
                raise ValueError(f"{self.metric} has no interval of its difference; ask for it of the challenger")
        elif metric_of(self.metric) is None:
            raise ValueError(f"{self.metric[:60]!r} is no metric; a metric from feedback is written metric:<name>")
        if self.interval < timedelta(seconds=1):
            raise ValueError("an interval is at least 1 s")
        return self


class Pause(Part):
    """Wait; without a duration until a person resumes."""

    duration: Duration | None = None


class Mirror(Part):
    """How much of the traffic the challenger gets beside the champion, as a shadow whose answers nobody sees."""

    percentage: Percent


class Step(Part):
    """Exactly one of these."""

    set_weight: Percent | None = None
    pause: Pause | None = None
    analysis: Analysis | None = None
    set_mirror_route: Mirror | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1 or all(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("a step is exactly one of setWeight, pause, analysis, setMirrorRoute")
        return self


class Watch(Part):
    """After promotion: for so long each of these may roll it back. A difference is to the former champion's rows
    during the ramp, so it is confounded with time; the bounds should allow for that."""

    duration: Duration
    analyses: tuple[Analysis, ...] = Field(default=(), max_length=20)


class SteppedPlan(Part):
    """One challenger's way up. `background` analyses run from the first step to the last."""

    kind: Literal["steps"] = "steps"
    challenger: Asset
    steps: tuple[Step, ...] = Field(min_length=1, max_length=100)
    background: tuple[Analysis, ...] = Field(default=(), max_length=20)
    promote: bool = True
    watch: Watch | None = None
    alpha: float = Field(default=0.05, gt=0, le=0.5)


class BanditPlan(Part):
    """Weights by Thompson sampling, set anew every `interval`, each challenger and the champion at least `floor`.

    It runs for `duration` (without one: until it is aborted) and then leaves the weights as they are.
    """

    kind: Literal["bandit"] = "bandit"
    challengers: tuple[Asset, ...] = Field(min_length=1, max_length=32)
    metric: str = Field(default="accuracy", max_length=120)
    better: Literal["higher", "lower"] | None = None
    floor: Percent = 1.0
    interval: Duration = timedelta(minutes=5)
    duration: Duration | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if metric_of(self.metric) is None or self.metric == "auc":
            raise ValueError(f"{self.metric[:60]!r} is no metric that single rows earn")
        if self.floor * (len(self.challengers) + 1) > 100:
            raise ValueError("the floors of all arms together are more than 100 %")
        if self.interval < timedelta(seconds=1):
            raise ValueError("an interval is at least 1 s")
        if len({(one.urn, one.version) for one in self.challengers}) != len(self.challengers):
            raise ValueError("a challenger is named twice")
        return self


def _kind(said: Any) -> str:
    """Steps, unless the plan says otherwise."""
    found = said.get("kind", "steps") if isinstance(said, dict) else getattr(said, "kind", "steps")
    return found if isinstance(found, str) else ""


Plan = Annotated[Annotated[SteppedPlan, Tag("steps")] | Annotated[BanditPlan, Tag("bandit")], Discriminator(_kind)]
