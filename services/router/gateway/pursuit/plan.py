"""Who may be asked for a group's requests, in which order: compiled with the snapshot from the section `routing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from services.router.gateway.arms import Arm, Served
from services.router.group_settings.routing import FailoverTarget, Routing


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target under one name: a version at its own address, or as a provider answers for it."""

    arm: Arm
    target: Served
    key: str
    """What breakers, latencies and probes know it by."""
    via: str = ""
    """`provider/model`, or `provider`, where it is asked at another place than its own."""
    tier: str = ""
    """The failover tier; empty for the version that was chosen."""


Find = Callable[[Arm, FailoverTarget], Arm | None]
"""The arm that a failover target is for requests of a chosen arm; None where nobody may be asked there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Of one group at one revision. Immutable."""

    section: Routing
    own: tuple[Candidate | None, ...]
    """By arm; None where it may not be served."""
    tiers: tuple[tuple[tuple[Candidate, ...], ...], ...]
    """By arm, the failover tiers that have somebody."""

    @staticmethod
    def of(section: Routing, arms: Sequence[Arm], find: Find) -> Plan:
        own = tuple(_own(arm) for arm in arms)
        return Plan(section, own, tuple(tuple(_tiers(section, arm, find)) for arm in arms))

    def candidates(self, arm: int, draw: int) -> list[Candidate]:
        """The chosen version first, then tier after tier; `draw` orders those of a tier, as its equals."""
        first = self.own[arm]
        found = [] if first is None else [first]
        for tier in self.tiers[arm]:
            found += tier if len(tier) == 1 else Random(draw).sample(tier, len(tier))
        return found

    @property
    def all(self) -> dict[str, Candidate]:
        """Everybody who may be asked, by key."""
        everybody = (*self.own, *(one for tiers in self.tiers for tier in tiers for one in tier))
        return {one.key: one for one in everybody if one is not None}


def _own(arm: Arm) -> Candidate | None:
    return None if arm.target is None else Candidate(arm, arm.target, arm.name)


def _tiers(section: Routing, arm: Arm, find: Find) -> Iterable[tuple[Candidate, ...]]:
    taken = {arm.name}
    for tier in section.failover:
        there: list[Candidate] = []
        for wanted in tier.targets:
            found = find(arm, wanted)
            if found is None or found.target is None:
                continue
            via = f"{wanted.provider}/{wanted.model}".rstrip("/") if wanted.provider is not None else ""
            key = f"{found.name} via {via}" if via else found.name
            if key not in taken:
                taken.add(key)
                there.append(Candidate(found, found.target, key, via, tier.name))
        if there:
            yield tuple(there)
