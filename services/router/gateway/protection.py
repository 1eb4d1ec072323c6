"""What a route is protected by: guards, caps and a watch for suspicious use, compiled once a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from pydantic import ValidationError

from services.router.domain import Version
from services.router.errors import ApprovalRefused
from services.router.gateway.caps.compiled import AssetClass, CompiledCaps
from services.router.gateway.caps.prices import Rates
from services.router.gateway.guardrails.guards import Guards
from services.router.group_settings import Caps, GroupSettings, Guardrails
from services.router.group_settings.caps import GroupPrice, Price
from services.router.group_settings.guardrails import Suspicion, strictest
from shared.events.guardrails import GUARDS, Guard


class Priced(Protocol):
    """A version that may answer, and what it costs."""

    @property
    def version(self) -> Version: ...

    @property
    def rates(self) -> Rates | None: ...


@dataclass(frozen=True, slots=True)
class Brought:
    """What others say of the workspace's assets: guards that versions bring along, classes by workspace and URN."""

    guards: dict[tuple[str, Version], tuple[Guard, ...]] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, AssetClass]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Protection:
    """None of a kind where the group has nothing of it; `NONE` is what costs a request nothing."""

    guards: Guards | None = None
    caps: CompiledCaps | None = None
    suspicion: Suspicion | None = None

    @staticmethod
    def of(
        workspace: str, group: str, settings: GroupSettings, asked: Sequence[Priced], brought: Brought
    ) -> Protection:
        """`asked` is who may answer, the champion first."""
        guardrails = settings.of(Guardrails)
        guards: tuple[Guard, ...] = ()
        for one in asked:
            guards = strictest(brought.guards.get((workspace, one.version), ()), guards)
        urns, rates = [one.version.urn for one in asked], [one.rates for one in asked]
        caps = CompiledCaps.of(group, settings.of(Caps), urns, rates, brought.classes.get(workspace, {}))
        suspicion = guardrails.suspicion
        made = Protection(
            Guards.of(guardrails, guards), caps, suspicion if suspicion is not None and suspicion.enabled else None
        )
        return made if made != NONE else NONE


NONE = Protection()


def guards_of(version: Version, guardrails: str) -> tuple[Guard, ...]:
    """The guards that a version brings along. Raises ApprovalRefused: without them it was not approved."""
    try:
        return GUARDS.validate_json(guardrails)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))[:100]
        raise ApprovalRefused(f"{version} brings guardrails that this gateway cannot read: {where}.") from None


def rates_of(prices: Iterable[GroupPrice], version: Version, provider_s: Price | None) -> Rates | None:
    """What a version costs: as the group has it (of the very version first), else as its provider does."""
    named = [one for one in prices if one.urn == version.urn and one.version in (None, version.version)]
    price = max(named, key=lambda one: one.version is not None) if named else provider_s
    return Rates.of(price) if price is not None else None


def classified(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, AssetClass]]:
    """`snapshot_classes` rows by workspace and URN."""
    found: dict[str, dict[str, AssetClass]] = {}
    for row in rows:
        most = row["monthly_usd"]
        one = AssetClass(row["urn"], row["risk"], row["cost"], None if most is None else Decimal(most))
        found.setdefault(row["workspace"], {})[row["urn"]] = one
    return found
