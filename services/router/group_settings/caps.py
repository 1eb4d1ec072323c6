"""How much of a group may be used and by whom, and what its answers cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.router.group_settings.base import Section

Scope = Literal["key", "group", "class"]
"""`key`: each caller by itself, within the group. `group`: all of the group's callers together. `class`: all groups of
the workspace whose champion has the same cost class, together."""
Risk = Literal["minimal", "limited", "high", "prohibited"]
Cost = Literal["low", "medium", "high"]
Usd = Annotated[Decimal, Field(ge=0, le=Decimal("1e9"), max_digits=21, decimal_places=12)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RateLimit(_Frozen):
    """At most so many requests, or tokens in and out, in each window of so many seconds.

    `when_unreachable` decides for a gateway that has used up its share while Postgres is away.
    """

    scope: Scope
    unit: Literal["requests", "tokens"]
    most: int = Field(ge=1, le=10**12)
    window_s: int = Field(ge=1, le=86_400)
    when_unreachable: Literal["refuse", "continue"] = "continue"


class Budget(_Frozen):
    """At most so much money in each day or calendar month (UTC)."""

    scope: Scope
    usd: Usd = Field(gt=0)
    period: Literal["day", "month"]
    when_unreachable: Literal["refuse", "continue"] = "refuse"


class Price(_Frozen):
    """What answers cost in USD. A part that is not named costs nothing; a price without any part is none."""

    input_per_million: Usd | None = None
    output_per_million: Usd | None = None
    per_request: Usd | None = None
    per_second: Usd | None = None
    """Of the time that the upstream took."""

    @model_validator(mode="after")
    def _says_something(self) -> Price:
        parts = (self.input_per_million, self.output_per_million, self.per_request, self.per_second)
        if all(part is None for part in parts):
            raise ValueError("a price names at least one of its parts; write 0 for what is free")
        return self


class GroupPrice(Price):
    """The price of a version in this group, before whatever its provider says."""

    urn: str = Field(pattern=r"^mm:[a-z-]+/.{1,200}$")
    version: int | None = Field(default=None, ge=1)
    """None: of every version."""


class AccessRule(_Frozen):
    """Who may call assets of these classes. Who is named by role or by id may; everyone else is refused."""

    risk: tuple[Risk, ...] = ()
    cost: tuple[Cost, ...] = ()
    roles: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    """Principals (`user:ada`) or ids of API keys."""

    @model_validator(mode="after")
    def _is_about_a_class(self) -> AccessRule:
        if not self.risk and not self.cost:
            raise ValueError("an access rule names the risk or cost classes that it is about")
        return self


class Caps(Section):
    """Every limit and budget must have room; the first that has none refuses. What a request may need is reserved
    before it is asked and settled by what it took."""

    section: ClassVar[str] = "caps"

    limits: tuple[RateLimit, ...] = Field(default=(), max_length=20)
    budgets: tuple[Budget, ...] = Field(default=(), max_length=20)
    prices: tuple[GroupPrice, ...] = Field(default=(), max_length=200)
    assumed_output_tokens: int = Field(default=4096, ge=1, le=10**7)
    """Reserved for a request that names no limit of its own."""
    when_price_unknown: Literal["refuse", "continue"] = "refuse"
    """Of a group with a budget: whether a version without a price may answer, which costs nobody knows what."""
    access: tuple[AccessRule, ...] = Field(default=(), max_length=50)
    unclassified: Literal["allow", "refuse"] = "allow"
    """Whether versions may be called whose asset nobody has classified."""

    @field_validator("limits")
    @classmethod
    def _distinct_limits(cls, limits: tuple[RateLimit, ...]) -> tuple[RateLimit, ...]:
        if len({(one.scope, one.unit, one.window_s) for one in limits}) < len(limits):
            raise ValueError("two limits are of the same scope, unit and window")
        return limits

    @field_validator("budgets")
    @classmethod
    def _distinct_budgets(cls, budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
        if len({(one.scope, one.period) for one in budgets}) < len(budgets):
            raise ValueError("two budgets are of the same scope and period")
        return budgets
