"""Groups: made, weighted, promoted, rolled back; each change a compare-and-swap of the revision it was decided on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import asyncpg
import orjson

from services.router import domain
from services.router.approval import evidence
from services.router.comparison.ledger import Ledger
from services.router.domain import Change, Group, Hosted, Shadow, Version
from services.router.errors import (
    ForceNeedsReason,
    GroupNameTaken,
    NotApproved,
    NotDeployed,
    RevisionConflict,
    SampleRatioMismatch,
    UnknownGroup,
)
from services.router.gateway.approvals import TrustedKeys
from services.router.handlers.comparisons import ratio_now
from services.router.handlers.providers import Providers
from services.router.store import Entry, Store
from services.router.tables.errors import GroupRetired
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.events.base import Actor, AssetRef
from shared.events.router import Arm, GroupChanged, GroupPromoted, GroupRolledBack


@dataclass(frozen=True, slots=True)
class AtProvider:
    """Which model of which provider answers for a version; without a model it is the provider's own."""

    provider: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A version as a caller names it; a digest, when given, must be the deployed or approved one.

    `upstream` is who answers for it, where that is no deployment; None leaves that as it is.
    """

    urn: str
    version: int
    digest: str | None = None
    upstream: AtProvider | None = None


class Allowed(NamedTuple):
    """A version that may get traffic, on what proof, and its provider where it is not deployed."""

    version: Version
    proof: dict[str, Any]
    hosted: tuple[Hosted, ...] = ()


State = Literal["serving", "retired", "deleted"]


@dataclass(frozen=True, slots=True)
class By:
    """Who changes a group, why, and the revision that they decided on (None: whatever is current)."""

    workspace: str
    actor: Actor
    reason: str = ""
    expected: int | None = None


class Groups:
    """`trusted` holds only the keys that may sign approvals."""

    def __init__(
        self,
        database: Database,
        store: Store,
        ledger: Ledger,
        providers: Providers,
        trusted: TrustedKeys,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._ledger = ledger
        self._providers = providers
        self._trusted = trusted
        self._clock = clock

    async def create(self, by: By, name: str, champion: Named) -> Entry:
        """A group at revision 1, with its inference table.

        Raises GroupNameRefused, GroupNameTaken, NotDeployed, NotApproved.
        """
        domain.checked_group_name(name)
        try:
            async with self._database.begin(by.workspace) as tx:
                version, proof, hosted = await self.allowed(tx, champion)
                now = self._clock()
                group = Group(name, by.workspace, 1, version, hosted=hosted)
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
            return await self.weigh_in(tx, by, name, weights_bp)

    async def weigh_in(self, tx: Transaction, by: By, name: str, weights_bp: Sequence[tuple[Named, int]]) -> Entry:
        """The same in a transaction that has more to do."""
        before = await self.find(tx, name)
        held = {(version.urn, version.version): version for version in before.group.versions}
        weights: list[tuple[Version, int]] = []
        proofs: dict[str, Any] = {}
        hosted: list[Hosted] = []
        for named, weight_bp in weights_bp:
            version = held.get((named.urn, named.version))
            # Whoever loses traffic need not be approved: a rejected challenger must be able to shrink.
            if version is None or weight_bp > _weight_of(before.group, version) or named.upstream is not None:
                version, proofs[f"{named.urn}@{named.version}"], found = await self.allowed(tx, named, before.group)
                hosted.extend(found)
            weights.append((version, weight_bp))
        group = domain.weigh(domain.host(before.group, hosted), weights, expected_revision=_expected(by, before))
        return await self._swap(tx, by, before, Change.WEIGHTED, group, proofs)

    async def mirror(self, by: By, name: str, shares_bp: Sequence[tuple[Named, int]]) -> Entry:
        """The group with these shadows and no others. Raises what `domain.mirror` and `create` raise."""
        async with self._database.begin(by.workspace) as tx:
            return await self.mirror_in(tx, by, name, shares_bp)

    async def mirror_in(self, tx: Transaction, by: By, name: str, shares_bp: Sequence[tuple[Named, int]]) -> Entry:
        """The same in a transaction that has more to do. A shadow sees real requests, so it must be approved too."""
        before = await self.find(tx, name)
        proofs: dict[str, Any] = {}
        shadows: list[Shadow] = []
        hosted: list[Hosted] = []
        for named, share_bp in shares_bp:
            version, proofs[f"{named.urn}@{named.version}"], found = await self.allowed(tx, named, before.group)
            hosted.extend(found)
            shadows.append(Shadow(version, share_bp))
        group = domain.mirror(domain.host(before.group, hosted), shadows, expected_revision=_expected(by, before))
        return await self._swap(tx, by, before, Change.MIRRORED, group, proofs)

    async def configure_in(
        self, tx: Transaction, by: By, name: str, what: dict[str, Any], *, retires: bool = False
    ) -> Entry:
        """A revision at which a setting of the group is to change, in the transaction that keeps it.

        Raises UnknownGroup, RevisionConflict.
        """
        before = await self.find(tx, name)
        group = domain.configure(before.group, expected_revision=_expected(by, before))
        state: State = "retired" if retires else "serving"
        return await self._swap(tx, by, before, Change.CONFIGURED, group, what, state)

    async def promote(self, by: By, name: str, asset: Named, *, force: bool = False) -> Entry:
        """The group with `asset` as champion; its approval is verified here and now. One of many at once wins.

        A challenger is not promoted on a broken split of traffic, unless forced; then the evidence says so.
        Raises RevisionConflict, AlreadyChampion, NotDeployed, NotApproved, SampleRatioMismatch, ForceNeedsReason.
        """
        if force and not by.reason.strip():
            raise ForceNeedsReason()
        async with self._database.begin(by.workspace) as tx:
            return await self.promote_in(tx, by, name, asset, force=force)

    async def promote_in(self, tx: Transaction, by: By, name: str, asset: Named, *, force: bool = False) -> Entry:
        """The same in a transaction that has more to do."""
        before = await self.find(tx, name)
        _require_current(by, before)  # the race is lost before anything else is wrong
        version, proof, hosted = await self.allowed(tx, asset, before.group)
        group = domain.promote(domain.host(before.group, hosted), version, expected_revision=_expected(by, before))
        split = await self._split(tx, before, version, force=force)
        after = await self._swap(tx, by, before, Change.PROMOTED, group, {"champion": proof, **split})
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

    async def _split(self, tx: Transaction, before: Entry, version: Version, *, force: bool) -> dict[str, Any]:
        """What the promotion's evidence says of the split of traffic. Raises SampleRatioMismatch."""
        if version not in before.group.versions:
            return {}
        ratio = await ratio_now(tx, self._store, self._ledger, before.group.name, self._clock())
        if ratio.p is None:
            return {}
        if ratio.is_mismatch and not force:
            raise SampleRatioMismatch(before.group.name, ratio.p)
        said: dict[str, Any] = {"p": ratio.p, "mismatch": ratio.is_mismatch, "forced": ratio.is_mismatch and force}
        return {"sample_ratio": said}

    async def roll_back(self, by: By, name: str) -> Entry:
        """The group with the champion before the last promotion, which was approved when it was made one.

        The way back is not barred by an approval that expired since; a rejection bars it. Raises RevisionConflict,
        NothingToRollBackTo, NotDeployed, NotApproved.
        """
        async with self._database.begin(by.workspace) as tx:
            return await self.roll_back_in(tx, by, name)

    async def roll_back_in(self, tx: Transaction, by: By, name: str) -> Entry:
        """The same in a transaction that has more to do."""
        before = await self.find(tx, name)
        history = [entry.revision for entry in await self._store.history(tx, name)]
        group = domain.roll_back(before.group, history, expected_revision=_expected(by, before))
        champion = group.champion
        named = Named(champion.urn, champion.version, champion.digest)
        await self.allowed(tx, named, before.group, expired_too=True)
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
            if before.group.host_of(version.urn, version.version) is not None:
                continue  # its provider answers for it here
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

    async def find_current(self, tx: Transaction, by: By, name: str) -> Entry:
        """Raises UnknownGroup, RevisionConflict when it is not at the revision that `by` decided on."""
        found = await self.find(tx, name)
        _require_current(by, found)
        return found

    async def allowed(
        self, tx: Transaction, named: Named, group: Group | None = None, *, expired_too: bool = False
    ) -> Allowed:
        """The version and what allows it to get traffic in the group. Raises NotDeployed, NotApproved.

        Of a provider's: UnknownProvider, FieldRefused too.
        """
        now = datetime.min.replace(tzinfo=self._clock().tzinfo) if expired_too else self._clock()
        held = group.host_of(named.urn, named.version) if group is not None else None
        upstream = named.upstream or (AtProvider(held.provider, held.model) if held is not None else None)
        if upstream is not None:
            return await self._allowed_at(tx, named, upstream, now)
        deployed = await self._store.deployed(tx, named.urn, named.version)
        if deployed is None:
            raise NotDeployed(
                f"{named.urn}@{named.version} answers nowhere yet; deploy it and wait for deploy.completed, or name "
                "the provider that answers for it."
            )
        if named.digest not in (None, deployed.version.digest):
            raise NotDeployed(f"What is deployed as {deployed.version} has the digest {deployed.version.digest}.")
        return Allowed(deployed.version, evidence(deployed, tx.workspace, self._trusted, now))

    async def _allowed_at(self, tx: Transaction, named: Named, upstream: AtProvider, now: datetime) -> Allowed:
        """The same of a version that a provider answers for: its approval is the one that approval.decided brought."""
        provider = await self._providers.find(tx, upstream.provider)
        asked = provider.upstream(upstream.model)
        approved = await self._store.approved(tx, named.urn, named.version)
        if approved is None:
            raise NotApproved(f"Nothing was heard of an approval of {named.urn}@{named.version}; have it approved.")
        version = approved.version
        if named.digest not in (None, version.digest):
            raise NotApproved(f"What is approved as {version} has the digest {version.digest}.")
        proof: dict[str, Any] = evidence(approved, tx.workspace, self._trusted, now)
        proof["upstream"] = {"provider": provider.name, "model": asked.model}
        statement = orjson.dumps(approved.statement).decode()
        return Allowed(version, proof, (Hosted(version, provider.name, asked.model, statement),))

    async def _swap(
        self, tx: Transaction, by: By, before: Entry, change: Change, group: Group, proofs: dict[str, Any],
        state: State = "serving",
    ) -> Entry:  # fmt: skip
        """Put `group` in force and say so. Raises RevisionConflict when somebody else was first."""
        at = max(self._clock(), before.at)  # a clock that was set back must not reorder the log
        unavailable = before.unavailable if group.champion == before.group.champion else None
        entry = Entry(change, group, by.actor.id, by.reason, proofs, at, before.created_at, unavailable)
        if not await self._store.swap(tx, before.group.revision, entry):
            current = (await self.find(tx, group.name)).group.revision
            if current == before.group.revision:  # nobody was first: a retired group changes no more
                raise GroupRetired(group.name)
            raise RevisionConflict(group.name, before.group.revision, current)
        tx.emit(changed(entry, by, state))
        return entry


def changed(entry: Entry, by: By, state: State = "serving") -> GroupChanged:
    """Said at every revision, so that whoever hears it alone knows all arms; who serves nobody any more has none."""
    group = entry.group
    serving = arms(group) if state == "serving" else ()
    return GroupChanged(
        group=group.name, revision=group.revision, state=state, arms=serving, reason=by.reason, actor=by.actor,
        at=entry.at,
    )  # fmt: skip


def arms(group: Group) -> tuple[Arm, ...]:
    """Champion first, then challengers, then shadows, each with its share in basis points."""
    return (
        Arm(asset=ref(group.champion), role="champion", weight_bp=group.champion_weight_bp),
        *(Arm(asset=ref(one.version), role="challenger", weight_bp=one.weight_bp) for one in group.challengers),
        *(Arm(asset=ref(one.version), role="shadow", weight_bp=one.share_bp) for one in group.shadows),
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
