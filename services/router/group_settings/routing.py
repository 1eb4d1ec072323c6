"""The section `routing`: which requests go to which version, and what is done when a version does not answer.

Left out, a group has none of it: its weights choose, one attempt is made, and its failure is the caller's answer.
Whoever asks for failover or hedging has retries within a budget too, and with failover a breaker, by default.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from services.router.group_settings.base import Section
from shared.events.base import Urn

BUCKETS_BP = 10_000
MOST_RULES = 64
MOST_CONDITIONS = 8
MOST_TARGETS = 16
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_|~-]{1,100}")
PATH = re.compile(r"\$?(?:\.?[^.\[\]]+|\[\d{1,9}\])(?:\.[^.\[\]]+|\[\d{1,9}\])*")
KEPT_BACK = ("authorization", "x-api-key", "cookie", "proxy-authorization")
"""Headers that prove who asks: a rule's values are read by many, so they must not be written there."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[\w .:/+-]+$")]
Value = bool | int | float | Annotated[str, StringConstraints(max_length=500)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Part(BaseModel):
    """Of the section: frozen and strict as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VersionRef(Part):
    """A version, as `{"urn": "mm:model/credit-pd", "version": 3}`."""

    urn: Urn
    version: int = Field(ge=1, le=2**31 - 1)

    def __str__(self) -> str:
        return f"{self.urn}@{self.version}"


class Condition(Part):
    """One look at a request: where (a header, a JSON path, an attribute, the unit), and what must be so there.

    `path` leads into the body: `metadata.tier`, `inputs[0].name`, `$.messages[0].role`. `attribute` is the first value
    of the input tensor of that name, or in a conversation a field of the body. Values of headers and units are text; of
    bodies they are compared as JSON has them, so that 1 is 1.0 and is neither true nor "1".
    """

    header: str | None = None
    path: str | None = Field(default=None, max_length=200)
    attribute: str | None = Field(default=None, min_length=1, max_length=200)
    unit: Literal[True] | None = None
    equals: Value | None = None
    is_in: tuple[Value, ...] | None = Field(default=None, alias="in", min_length=1, max_length=1000)
    prefix: str | None = Field(default=None, min_length=1, max_length=500)
    present: bool | None = None

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True)

    @field_validator("header")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if HEADER.fullmatch(value) is None:
            raise ValueError(f"{value[:60]!r} is no name of a header; give one such as x-cohort")
        if value.lower() in KEPT_BACK:
            raise ValueError(f"{value} proves who asks and is not matched on; send another header beside it")
        return value.lower()

    @field_validator("path")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None and PATH.fullmatch(value) is None:
            raise ValueError(f"{value[:60]!r} is no path; write one such as metadata.tier or inputs[0].name")
        return value

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        places = [self.header, self.path, self.attribute, self.unit]
        if sum(one is not None for one in places) != 1:
            raise ValueError("a condition looks at one place: give one of header, path, attribute, unit")
        if sum(one is not None for one in (self.equals, self.is_in, self.prefix, self.present)) != 1:
            raise ValueError("a condition asks one thing: give one of equals, in, prefix, present")
        return self


class Share(Part):
    """A version's part of what a rule takes, in basis points."""

    to: VersionRef
    weight_bp: int = Field(ge=1, le=BUCKETS_BP)


class Rule(Part):
    """Requests for which every condition holds go to a version of the group, or are split between some by unit."""

    name: Name
    when: tuple[Condition, ...] = Field(min_length=1, max_length=MOST_CONDITIONS)
    to: VersionRef | Literal["champion"] | None = None
    split: tuple[Share, ...] | None = Field(default=None, min_length=1, max_length=32)

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if (self.to is None) == (self.split is None):
            raise ValueError(f"the rule {self.name!r} sends to one place: give either to or split")
        if self.split is not None:
            if (total := sum(one.weight_bp for one in self.split)) != BUCKETS_BP:
                raise ValueError(f"the split of {self.name!r} adds up to {total} basis points; it must be {BUCKETS_BP}")
            if len({one.to for one in self.split}) != len(self.split):
                raise ValueError(f"the split of {self.name!r} names a version twice; name each once")
        return self


class FailoverTarget(Part):
    """Who is asked instead: a version, or a version (left out, the one that was chosen) as a provider answers for it.

    A version must be approved, wherever it answers; the gateway verifies that itself.
    """

    version: VersionRef | None = None
    provider: str | None = Field(default=None, min_length=1, max_length=48)
    model: str = Field(default="", max_length=2048)
    """The provider's name of it; empty for the provider's own."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.version is None and self.provider is None:
            raise ValueError("a failover target names a version, a provider, or both")
        if self.model and self.provider is None:
            raise ValueError("a model is a provider's: name the provider too")
        return self


class Tier(Part):
    """Targets that are as good as each other, such as a region's: their order is drawn anew for every request."""

    name: Name
    targets: tuple[FailoverTarget, ...] = Field(min_length=1, max_length=MOST_TARGETS)


class Timeouts(Part):
    """Seconds. `attempt_s`: of one attempt, or of a silence in a stream. `total_s`: of all of them together, until the
    answer is whole or its first token is there. Left out, the gateway's own hold.
    """

    attempt_s: Seconds | None = None
    total_s: Seconds | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.attempt_s is not None and self.total_s is not None and self.attempt_s > self.total_s:
            raise ValueError(f"attempt_s is {self.attempt_s:g} and total_s only {self.total_s:g}; raise total_s")
        return self


class Retries(Part):
    """`most` attempts beside the first, of one request. All requests' together (retries, failovers, hedges) may be
    `budget_percent` of the requests of the last `window_s`, and always `least` in that time.
    """

    most: int = Field(default=2, ge=0, le=10)
    budget_percent: float = Field(default=20.0, ge=0, le=100)
    window_s: Seconds = 10.0
    least: int = Field(default=3, ge=0, le=1000)
    same_target: bool = True
    """Whether the one target that there is may be asked again, when no other is left."""


class Hedge(Part):
    """Ask a second time when the first is slower than this percentile of its target's recent answers."""

    percentile: float = Field(default=95.0, ge=50, lt=100)
    at_least_ms: float = Field(default=5.0, ge=0, le=60_000)
    least_answers: int = Field(default=20, ge=1, le=256)
    """Before so many were heard, nothing is known and nobody is asked twice."""


class Breaker(Part):
    """A target that fails is left alone: after `consecutive_failures`, or when `failure_share` of at least
    `least_requests` in `window_s` failed. After `open_s`, `probes` requests at a time are let through to try it.
    """

    consecutive_failures: int = Field(default=5, ge=1, le=1000)
    failure_share: float | None = Field(default=0.5, gt=0, le=1)
    least_requests: int = Field(default=20, ge=1, le=100_000)
    window_s: Seconds = 10.0
    open_s: Seconds = 5.0
    probes: int = Field(default=1, ge=1, le=100)


class Health(Part):
    """Ask Open Inference servers every `interval_s` whether they are ready; who is not comes last.

    `of`: the `model` at its own address, or the `server` as a whole (`/v2/health/ready`).
    """

    of: Literal["model", "server"] = "model"
    interval_s: float = Field(default=5.0, ge=0.05, le=3600)
    timeout_s: Seconds = 1.0
    unhealthy_after: int = Field(default=2, ge=1, le=100)
    healthy_after: int = Field(default=1, ge=1, le=100)


class Cache(Part):
    """Answer the very same request again without asking, in each gateway process for itself."""

    ttl_s: Seconds = 60.0
    max_entries: int = Field(default=1000, ge=1, le=1_000_000)
    max_bytes: int = Field(default=16 << 20, ge=1024, le=1 << 30)


class ShadowLimits(Part):
    """Most shadow requests under way at a time in each gateway process; one more is dropped and counted."""

    in_flight: int = Field(default=32, ge=0, le=10_000)


class Routing(Section):
    """How a group's requests find their way."""

    section: ClassVar[str] = "routing"

    rules: tuple[Rule, ...] = Field(default=(), max_length=MOST_RULES)
    """In their order: the first that matches decides, and the weights for the rest."""
    failover: tuple[Tier, ...] = Field(default=(), max_length=MOST_TARGETS)
    """Who is asked, tier after tier, when the chosen version does not answer."""
    timeouts: Timeouts = Timeouts()
    retries: Retries | None = None
    """None: the defaults with failover or hedging, and no further attempt without."""
    hedge: Hedge | None = None
    breaker: Breaker | None = None
    """None: the defaults with failover, and no breaker without."""
    health: Health | None = None
    shadows: ShadowLimits = ShadowLimits()
    cache: Cache | None = None

    @property
    def retries_in_force(self) -> Retries:
        return self.retries or (Retries() if self.failover or self.hedge else Retries(most=0))

    @property
    def breaker_in_force(self) -> Breaker | None:
        return self.breaker or (Breaker() if self.failover else None)

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        for what, names in (("rule", self.rules), ("failover tier", self.failover)):
            taken = [one.name for one in names]
            if (twice := next((name for name in taken if taken.count(name) > 1), None)) is not None:
                raise ValueError(f"there are two {what}s of the name {twice!r}; a reason must be told by its name")
        return self
