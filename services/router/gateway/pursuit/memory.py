"""What a gateway process knows of groups' targets from one request to the next: breakers, latencies, health, budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.router.gateway.cache import Cache
from services.router.gateway.pursuit.breaker import Breaker
from services.router.gateway.pursuit.budget import Budget
from services.router.gateway.pursuit.latency import Latencies
from services.router.group_settings.routing import Routing


class Memory:
    """Of one group. A change of its settings begins anew what the change is about, and the cache in any case."""

    __slots__ = ("_breaker", "_breakers", "_latencies", "budget", "cache", "retries", "section", "unready")

    def __init__(self, section: Routing, before: Memory | None = None) -> None:
        self.section = section
        same = before.section if before is not None else None
        self.retries = section.retries_in_force
        self._breaker = section.breaker_in_force
        self._breakers: dict[str, Breaker] = {}
        self._latencies: dict[tuple[str, bool], Latencies] = {}
        self.budget = Budget(self.retries)
        self.unready: set[str] = set()
        """Keys of targets whose health probes fail."""
        self.cache = Cache(section.cache) if section.cache is not None else None
        if before is None or same is None:
            return
        if before._breaker == self._breaker:
            self._breakers = before._breakers
        if same.hedge == section.hedge:
            self._latencies = before._latencies
        if before.retries == self.retries:
            self.budget = before.budget
        if same.health == section.health:
            self.unready = before.unready

    def breaker(self, key: str) -> Breaker | None:
        """The target's breaker; None where the group has none."""
        if self._breaker is None:
            return None
        found = self._breakers.get(key)
        if found is None:
            found = self._breakers[key] = Breaker(self._breaker)
        return found

    def latencies(self, key: str, streams: bool) -> Latencies | None:
        """Of whole answers, or of first tokens; None where the group does not hedge."""
        if self.section.hedge is None:
            return None
        found = self._latencies.get((key, streams))
        if found is None:
            found = self._latencies[key, streams] = Latencies(self.section.hedge.percentile)
        return found

    def breakers(self) -> Mapping[str, Breaker]:
        return self._breakers

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forget targets that are none any more."""
        kept = set(keys)
        for key in set(self._breakers) - kept:
            del self._breakers[key]
        for pair in [one for one in self._latencies if one[0] not in kept]:
            del self._latencies[pair]
        self.unready &= kept


class Memories:
    """By group. Only groups whose section `routing` says something have one."""

    def __init__(self) -> None:
        self._known: dict[str, Memory] = {}

    def of(self, group: str, section: Routing) -> Memory:
        """The group's memory; for a request under an older section than the newest too."""
        found = self._known.get(group)
        if found is None:
            found = self._known[group] = Memory(section)
        return found

    def take(self, sections: Mapping[str, tuple[Routing, Iterable[str]]]) -> None:
        """A new snapshot: by group its section and the keys of its targets."""
        known: dict[str, Memory] = {}
        for group, (section, keys) in sections.items():
            before = self._known.get(group)
            known[group] = before if before is not None and before.section == section else Memory(section, before)
            known[group].keep_only(keys)
        self._known = known

    def items(self) -> Iterable[tuple[str, Memory]]:
        return self._known.items()
