"""Names in a group's settings: whatever they name must be there when they are set, or who set them is told what is.

What goes later is dealt with where it is missed: a rule gives way, a failover target is passed over, a judge fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from services.router.domain import Group
from services.router.errors import UnknownName
from services.router.group_settings import Guardrails, Routing, Section
from services.router.group_settings.routing import FailoverTarget
from services.router.store import Store
from shared.db.database import Transaction
from shared.events.guardrails import JudgeGuard

Kind = Literal["member", "deployed", "approved", "provider", "group"]
WHERE: dict[Kind, str] = {
    "member": "not in the group", "deployed": "deployed nowhere", "approved": "not approved",
    "provider": "no provider of your workspace", "group": "no group of your workspace",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mention:
    """A name as it stands in a field, and what it must be the name of."""

    field: str
    kind: Kind
    name: str


async def require_known(tx: Transaction, store: Store, group: Group, value: Section) -> None:
    """Raises UnknownName with the first field that names what is not there, and the names most like it."""
    mentions = [*mentions_of(value)]
    if not mentions:
        return
    known: dict[str, set[str]] = await store.names(tx)
    known["member"] = {f"{one.urn}@{one.version}" for one in group.versions}
    for one in mentions:
        there = known.get(one.kind, set())
        if one.name not in there:
            raise UnknownName(one.field, one.name, WHERE[one.kind], near(one.name, there))


def near(name: str, there: Iterable[str]) -> list[str]:
    """The names most like it; of an asset's version its other versions, the newest first."""
    urn, _, number = name.rpartition("@")
    same = [one for one in there if number.isdecimal() and one.rpartition("@")[0] == urn]
    same.sort(key=_number, reverse=True)
    # Compared without their kind: `mm:model/` alone would make any two of them alike.
    by_name = {one.rpartition("/")[2]: one for one in sorted(there)}
    return same[:3] or [by_name[one] for one in get_close_matches(name.rpartition("/")[2], by_name, n=3, cutoff=0.6)]


def _number(version: str) -> int:
    return int(version.rpartition("@")[2])


def mentions_of(value: Section) -> Iterator[Mention]:
    """Every name that a section holds, in the order of its fields."""
    if isinstance(value, Guardrails):
        for place, guard in enumerate(value.guards):
            if isinstance(guard, JudgeGuard):
                yield Mention(f"guards.{place}.group", "group", guard.group)
    if not isinstance(value, Routing):
        return
    for place, rule in enumerate(value.rules):
        if rule.to is not None and rule.to != "champion":
            yield Mention(f"rules.{place}.to", "member", str(rule.to))
        for share, one in enumerate(rule.split or ()):
            yield Mention(f"rules.{place}.split.{share}.to", "member", str(one.to))
    for place, tier in enumerate(value.failover):
        for number, target in enumerate(tier.targets):
            yield from _of_target(f"failover.{place}.targets.{number}", target)


def _of_target(field: str, target: FailoverTarget) -> Iterator[Mention]:
    if target.provider is not None:
        yield Mention(f"{field}.provider", "provider", target.provider)
    if target.version is not None:
        yield Mention(f"{field}.version", "deployed" if target.provider is None else "approved", str(target.version))
