"""Groups: made, weighted, promoted, rolled back; each change a compare-and-swap of the revision it was decided on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from services.router import domain
from services.router.approval import evidence
from services.router.domain import Change, Group, Version
from services.router.errors import GroupNameTaken, NotDeployed, RevisionConflict, UnknownGroup
from services.router.gateway.snapshot import TrustedKeys
from services.router.store import Entry, Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.events.base import Actor, AssetRef
from shared.events.router import Arm, GroupChanged, GroupPromoted, GroupRolledBack


@dataclass(frozen=True, slots=True)
class Named:
    """A version as a caller names it; a digest, when given, must be the deployed one."""

    urn: str
    version: int
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class By:
    """Who changes a group, why, and the revision that they decided on (None: whatever is current)."""

    workspace: str
    actor: Actor
    reason: str = ""
    expected: int | None = None


class Groups:
    """`trusted` holds only the keys that may sign approvals."""

    def __init__(self, database: Database, store: Store, trusted: TrustedKeys, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._trusted = trusted
        self._clock = clock

    async def create(self, by: By, name: str, champion: Named) -> Entry:
        """A group at revision 1, with its inference table.

        Raises GroupNameRefused, GroupNameTaken, NotDeployed, NotApproved.
        """
        domain.checked_group_name(name)
        try:
            async with self._database.begin(by.workspace) as tx:
                version, proof = await self._allowed(tx, champion)
                now = self._clock()
                group = Group(name, by.workspace, 1, version)
                entry = Entry(Change.CREATED, group, by.actor.id, by.reason, {"champion": proof}, now, now)
                await self._store.add_group(tx, entry)
                tx.emit(changed(entry, by))
                return entry
        except asyncpg.UniqueViolationError:
            # Not looked up before: under row-level security another workspace's name cannot be seen, only met.
            raise GroupNameTaken(f"The name {name!r} is taken; names are unique over all workspaces.") from None

    async def weigh(self, by: By, name: str, weights_bp: Sequence[tuple[Named, int]]) -> Entry:
        """The group with these challengers and no others. Raises what `domain.weigh` and `create` raise."""
        async with self._database.begin(by.workspace) as tx:
            before = await self.find(tx, name)
            held = {(version.urn, version.version): version for version in before.group.versions}
            weights: list[tuple[Version, int]] = []
            proofs: dict[str, Any] = {}
            for named, weight_bp in weights_bp:
                version = held.get((named.urn, named.version))
                # Whoever loses traffic need not be approved: a rejected challenger must be able to shrink.
                if version is None or weight_bp > _weight_of(before.group, version):
                    version, proofs[f"{named.urn}@{named.version}"] = await self._allowed(tx, named)
                weights.append((version, weight_bp))
            group = domain.weigh(before.group, weights, expected_revision=_expected(by, before))
            return await self._swap(tx, by, before, Change.WEIGHTED, group, proofs)

    async def promote(self, by: By, name: str, asset: Named) -> Entry:
        """The group with `asset` as champion; its approval is verified here and now. One of many at once wins.

        Raises RevisionConflict, AlreadyChampion, NotDeployed, NotApproved.
        """
        async with self._database.begin(by.workspace) as tx:
            before = await self.find(tx, name)
            _require_current(by, before)  # the race is lost before anything else is wrong
            version, proof = await self._allowed(tx, asset)
            group = domain.promote(before.group, version, expected_revision=_expected(by, before))
            after = await self._swap(tx, by, before, Change.PROMOTED, group, {"champion": proof})
            tx.emit(
                GroupPromoted(
                    group=name,
                    revision=group.revision,
                    before=ref(before.group.champion),
                    after=ref(version),
                    evidence=after.evidence,
                    reason=by.reason,
                    actor=by.actor,
                    at=after.at,
                )
            )
            return after

    async def roll_back(self, by: By, name: str) -> Entry:
        """The group with the champion before the last promotion, which was approved when it was made one.

        The way back is not barred by an approval that expired since; a rejection bars it. Raises RevisionConflict,
        NothingToRollBackTo, NotDeployed, NotApproved.
        """
        async with self._database.begin(by.workspace) as tx:
            before = await self.find(tx, name)
            history = [entry.revision for entry in await self._store.history(tx, name)]
            group = domain.roll_back(before.group, history, expected_revision=_expected(by, before))
            champion = group.champion
            await self._allowed(tx, Named(champion.urn, champion.version, champion.digest), expired_too=True)
            after = await self._swap(tx, by, before, Change.ROLLED_BACK, group, {})
            tx.emit(
                GroupRolledBack(
                    group=name,
                    revision=group.revision,
                    before=ref(before.group.champion),
                    after=ref(champion),
                    reason=by.reason,
                    actor=by.actor,
                    at=after.at,
                )
            )
            return after

    async def take_out(self, tx: Transaction, by: By, version: Version) -> None:
        """The version leaves every group in which it is a challenger; a champion stays, until somebody decides.

        Raises RevisionConflict when a person changes one of them at this moment.
        """
        for name in await self._store.challenged_by(tx, version):
            before = await self.find(tx, name)
            group = domain.without(before.group, version, expected_revision=before.group.revision)
            await self._swap(tx, by, before, Change.WEIGHTED, group, {})

    async def one(self, workspace: str, name: str) -> Entry:
        """A group as it is in force. Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            return await self.find(tx, name)

    async def listed(self, workspace: str, after: str, most: int) -> list[Entry]:
        """In the order of names."""
        async with self._database.begin(workspace) as tx:
            return await self._store.groups(tx, after, most)

    async def history(self, workspace: str, name: str) -> list[Entry]:
        """Oldest first. Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            found = await self._store.history(tx, name)
        if not found:
            raise UnknownGroup(name)
        return found

    async def at(self, workspace: str, name: str, moment: datetime) -> Entry:
        """What served the group at a moment. Raises UnknownGroup, NotFound when it was not there yet."""
        async with self._database.begin(workspace) as tx:
            found = await self._store.group_at(tx, name, moment)
            if found is None:
                created = (await self.find(tx, name)).created_at
                raise NotFound(f"The group {name!r} was made at {created.isoformat()}; before that nothing served it.")
            return found

    async def find(self, tx: Transaction, name: str) -> Entry:
        """Raises UnknownGroup, for another workspace's group too."""
        found = await self._store.group(tx, name)
        if found is None:
            raise UnknownGroup(name)
        return found

    async def _allowed(
        self, tx: Transaction, named: Named, *, expired_too: bool = False
    ) -> tuple[Version, dict[str, str]]:
        """The deployed version and what allows it to get traffic. Raises NotDeployed, NotApproved."""
        deployed = await self._store.deployed(tx, named.urn, named.version)
        if deployed is None:
            raise NotDeployed(
                f"{named.urn}@{named.version} answers nowhere yet; deploy it and wait for deploy.completed."
            )
        if named.digest not in (None, deployed.version.digest):
            raise NotDeployed(f"What is deployed as {deployed.version} has the digest {deployed.version.digest}.")
        now = datetime.min.replace(tzinfo=self._clock().tzinfo) if expired_too else self._clock()
        return deployed.version, evidence(deployed, tx.workspace, self._trusted, now)

    async def _swap(
        self, tx: Transaction, by: By, before: Entry, change: Change, group: Group, proofs: dict[str, Any]
    ) -> Entry:
        """Put `group` in force and say so. Raises RevisionConflict when somebody else was first."""
        at = max(self._clock(), before.at)  # a clock that was set back must not reorder the log
        unavailable = before.unavailable if group.champion == before.group.champion else None
        entry = Entry(change, group, by.actor.id, by.reason, proofs, at, before.created_at, unavailable)
        if not await self._store.swap(tx, before.group.revision, entry):
            current = (await self.find(tx, group.name)).group.revision
            raise RevisionConflict(group.name, before.group.revision, current)
        tx.emit(changed(entry, by))
        return entry


def changed(entry: Entry, by: By) -> GroupChanged:
    """Said at every revision, so that whoever hears it alone knows all arms."""
    group = entry.group
    return GroupChanged(
        group=group.name, revision=group.revision, arms=arms(group), reason=by.reason, actor=by.actor, at=entry.at
    )


def arms(group: Group) -> tuple[Arm, ...]:
    """Champion first, each with its share in basis points."""
    return (
        Arm(asset=ref(group.champion), role="champion", weight_bp=group.champion_weight_bp),
        *(Arm(asset=ref(one.version), role="challenger", weight_bp=one.weight_bp) for one in group.challengers),
    )


def ref(version: Version) -> AssetRef:
    return AssetRef(urn=version.urn, version=version.version, digest=version.digest)


def _weight_of(group: Group, version: Version) -> int:
    """Basis points; -1 for who is no challenger."""
    return next((one.weight_bp for one in group.challengers if one.version == version), -1)


def _expected(by: By, before: Entry) -> int:
    return before.group.revision if by.expected is None else by.expected


def _require_current(by: By, before: Entry) -> None:
    if by.expected not in (None, before.group.revision):
        assert by.expected is not None
        raise RevisionConflict(before.group.name, by.expected, before.group.revision)
