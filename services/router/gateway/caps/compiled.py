"""A route's caps, made once a snapshot: which counters a request is counted in, how much it may need, who may call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from services.router.gateway.caps.errors import ClassRefused
from services.router.gateway.caps.prices import Rates, pico
from services.router.gateway.caps.windows import Period
from services.router.group_settings.caps import AccessRule, Caps
from shared.identity.principal import Principal

Unreachable = Literal["refuse", "continue"]


@dataclass(frozen=True, slots=True)
class AssetClass:
    """Risk and cost class of an asset, as the last classification.changed had them."""

    urn: str
    risk: str
    cost: str
    monthly_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Cap:
    scope: str
    """`key`, `group`, `class` or `asset`."""
    name: str
    """Of its counter, without the caller's part."""
    unit: str
    most: int
    length: int | Period
    when_unreachable: Unreachable

    @property
    def is_budget(self) -> bool:
        return self.unit == "usd"

    @property
    def what(self) -> str:
        """As a sentence names it."""
        span = f"{self.length} s" if isinstance(self.length, int) else f"a {self.length}"
        whose = {"key": "this caller", "group": "this group", "class": "this group's cost class"}
        return f"{self.unit} of {whose.get(self.scope, 'this asset')} within {span}"

    def counter_of(self, principal: Principal) -> str:
        return f"{self.name}/{principal.key_id or principal.id}" if self.scope == "key" else self.name


@dataclass(frozen=True, slots=True)
class CompiledCaps:
    """None of it where a group has no caps and its assets no class."""

    caps: tuple[Cap, ...]
    rates: Rates | None
    """The dearest of all arms, part by part; None where one of them has no price."""
    refuses_unpriced: bool
    assumed_output_tokens: int
    rules: tuple[AccessRule, ...]
    classes: tuple[AssetClass | None, ...]
    """Of every asset that may answer: a caller may be sent to any of them, so it must be let to each."""
    refuses_unclassified: bool

    @staticmethod
    def of(
        group: str, section: Caps, urns: Sequence[str], rates: Sequence[Rates | None], classes: Mapping[str, AssetClass]
    ) -> CompiledCaps | None:
        """`urns` and `rates` are the arms', the champion's first."""
        of_arms = tuple(classes.get(urn) for urn in dict.fromkeys(urns))
        caps = tuple(_caps(group, section, of_arms[0], [one for one in of_arms if one is not None]))
        judged = any(of_arms) or section.unclassified == "refuse"
        if not caps and not judged:
            return None
        budgets = bool(section.budgets)
        return CompiledCaps(
            caps=caps,
            rates=_dearest(rates),
            refuses_unpriced=budgets and section.when_price_unknown == "refuse",
            assumed_output_tokens=section.assumed_output_tokens,
            rules=section.access,
            classes=of_arms,
            refuses_unclassified=section.unclassified == "refuse",
        )

    def require_access(self, principal: Principal) -> None:
        """Raises ClassRefused unless the group lets the caller to assets of its arms' classes."""
        for one in self.classes:
            if one is None:
                if self.refuses_unclassified:
                    raise ClassRefused("This group's asset is not classified, and its caps refuse such ones.")
                continue
            if one.risk == "prohibited":
                raise ClassRefused(f"{one.urn} is classified as prohibited; nobody may call it.")
            for rule in self.rules:
                if one.risk not in rule.risk and one.cost not in rule.cost:
                    continue
                if not (principal.roles & set(rule.roles) or {principal.id, principal.key_id} & set(rule.callers)):
                    raise ClassRefused(
                        f"{one.urn} is of risk class {one.risk} and cost class {one.cost}, which this group lets only "
                        "named roles and callers use; ask its owner to name you."
                    )

    def needs(self, asked: Any, body_bytes: int, timeout_s: float) -> dict[str, int]:
        """How much a request may need at the most, by unit. `asked` is its parsed body, None where that is no object.

        Money is there only where the price is known.
        """
        tokens_out = output_limit(asked, self.assumed_output_tokens)
        found = {"requests": 1, "tokens": body_bytes + tokens_out}
        if self.rates is not None:
            found["usd"] = self.rates.at_most(body_bytes, tokens_out, timeout_s)
        return found


def output_limit(asked: Any, assumed: int) -> int:
    """How many tokens the answer may have: what the request says, each choice counted; 0 for embeddings."""
    if not isinstance(asked, dict):
        return assumed
    if "messages" not in asked and "input" in asked and "max_output_tokens" not in asked and "encoding_format" in asked:
        return 0
    limits = [asked.get(name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens")]
    named = [one for one in limits if type(one) is int and one > 0]
    choices = asked.get("n")
    return (max(named) if named else assumed) * (choices if type(choices) is int and choices > 0 else 1)


def _caps(group: str, section: Caps, champion: AssetClass | None, classes: Iterable[AssetClass]) -> Iterable[Cap]:
    cost = champion.cost if champion else "unclassified"
    names = {"key": f"key/{group}", "group": f"group/{group}", "class": f"class/{cost}"}
    for limit in section.limits:
        yield Cap(limit.scope, names[limit.scope], limit.unit, limit.most, limit.window_s, limit.when_unreachable)
    for budget in section.budgets:
        yield Cap(budget.scope, names[budget.scope], "usd", pico(budget.usd), budget.period, budget.when_unreachable)
    for one in classes:
        if one.monthly_usd is not None:
            yield Cap("asset", f"asset/{one.urn}", "usd", pico(one.monthly_usd), "month", "refuse")


def _dearest(rates: Sequence[Rates | None]) -> Rates | None:
    found: Rates | None = None
    for one in rates:
        if one is None:
            return None
        found = one if found is None else found.dearest(one)
    return found
