"""The groups as a gateway serves them: immutable, swapped whole, and never with an unproven version among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import orjson

from services.router.domain import (
    Group,
    Hosted,
    Version,
    bucket_of,
    withdrawn,
)
from services.router.errors import ApprovalRefused, SealBroken
from services.router.gateway.approvals import Approval, TrustedKeys, require_bound, verified_approval
from services.router.gateway.arms import Arm, Endpoint, ProviderTarget, Refusal, Served, Target, lines_of
from services.router.gateway.minimisation import Minimiser
from services.router.gateway.minimisation.keys import GroupKeyRing, GroupKeys
from services.router.gateway.protection import NONE, Brought, Protection, classified, guards_of
from services.router.gateway.pursuit.plan import Candidate, Plan
from services.router.gateway.rows import text
from services.router.gateway.rules import Rules
from services.router.gateway.sealing import Belonging, KeyRing, MasterKey, Sealed, Sealer
from services.router.gateway.snapshot_rows import group_of, inputs_of, moment_of
from services.router.gateway.spool.format import address
from services.router.group_settings import Caps, GroupSettings, Routing, Rows
from services.router.group_settings.caps import GroupPrice
from services.router.group_settings.routing import FailoverTarget
from shared.errors import MintmarkError, Refused


@dataclass(frozen=True, slots=True)
class Route:
    """A group with its arms, the champion first; a target is None where the version is not servable."""

    group: Group
    arms: tuple[Arm, ...]
    drops_rows: bool
    """What the group chose for a full spool: an answer without a row."""
    unit_header: bytes
    address: bytes
    workspace_column: bytes
    header_lines: bytes
    created: datetime
    protection: Protection = NONE
    routing: Routing | None = None
    rules: Rules | None = None
    plan: Plan | None = None
    shadows: Mapping[Version, Arm] = field(default_factory=dict)
    """Those that may be served."""
    minimiser: Minimiser | None = None

    @staticmethod
    def of(
        group: Group, arms: tuple[Arm, ...], created: datetime, settings: GroupSettings, keys: GroupKeys,
        plan: Plan | None = None, shadows: tuple[Arm, ...] = (), brought: Brought | None = None,
    ) -> Route:  # fmt: skip
        """Whatever a request may need of the settings is made here, once; None where the group has nothing of it."""
        routing = settings.of(Routing)
        asked = (*arms, *(one.arm for one in plan.all.values())) if plan is not None else arms
        return Route(
            group=group,
            arms=arms,
            drops_rows=settings.of(Rows).when_spool_full == "drop",
            unit_header=group.unit_rule.header.lower().encode(),
            address=address(group.workspace, group.name),
            workspace_column=text(group.workspace),
            header_lines=lines_of(group.name, "none"),
            created=created,
            minimiser=Minimiser.of(settings.of(Rows), keys),
            protection=Protection.of(group.workspace, group.name, settings, asked, brought or Brought()),
            routing=routing if routing != Routing() else None,
            rules=Rules(routing.rules, group) if routing.rules else None,
            plan=plan,
            shadows={one.version: one for one in shadows if one.target is not None},
        )

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        """Of everybody who may be asked."""
        others: Iterable[Candidate] = self.plan.all.values() if self.plan is not None else ()
        targets = (arm.target for arm in (*self.arms, *self.shadows.values(), *(one.arm for one in others)))
        return (target.endpoint for target in targets if target is not None)

    def candidates(self, place: int, raw_id: bytes) -> list[Candidate]:
        """Who may be asked for a request that arm should answer, in their order."""
        return self.plan.candidates(place, int.from_bytes(raw_id[-6:], "big")) if self.plan is not None else []

    @property
    def targets(self) -> Iterable[str]:
        """Keys of whoever a request may be pursued at."""
        return self.plan.all if self.plan is not None else ()

    @property
    def champion(self) -> Arm:
        return self.arms[0]

    def arm_of(self, unit: str) -> Arm:
        """Who should serve the unit. A challenger that may not be served gives way to the champion."""
        arm = self.arms[self.place_of(unit)]
        return arm if arm.target is not None else self.arms[0]

    def place_of(self, unit: str) -> int:
        """Whose bucket the unit's is, as an index into the arms."""
        return self.group.arm_of_bucket[bucket_of(self.group.name, unit)]


@dataclass(frozen=True, slots=True)
class Unread:
    """A group that cannot be read as it is told now. `revision` is what it goes on with; None where there is none."""

    workspace: str
    revision: int | None
    error: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    stamp: str = ""
    routes: Mapping[str, Route] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    broken: tuple[str, ...] = ()
    """Providers' keys that could not be opened: to be tried again."""
    unread: Mapping[str, Unread] = field(default_factory=dict)
    """By name: to be tried again too."""

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        return frozenset(endpoint for route in self.routes.values() for endpoint in route.endpoints)

    def near(self, name: str, workspace: str) -> tuple[str, ...]:
        """Up to three groups of the workspace with names like this one."""
        names = [route.group.name for route in self.routes.values() if route.group.workspace == workspace]
        return tuple(get_close_matches(name, names, n=3, cutoff=0.6))


@dataclass(frozen=True, slots=True)
class _Known:
    """What a snapshot is made of: verified targets, why others are none, approvals' statements, providers."""

    targets: dict[tuple[str, Version], Served] = field(default_factory=dict)
    refusals: dict[tuple[str, Version], Refusal] = field(default_factory=dict)
    statements: dict[tuple[str, Version], str] = field(default_factory=dict)
    providers: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    refused_here: list[Refusal] = field(default_factory=list)
    verified: dict[str, Approval] = field(default_factory=dict)
    brought: Brought = field(default_factory=Brought)


class SnapshotBuilder:
    """Builds snapshots from rows; remembers which statements it has verified, since Ed25519 costs 0.1 ms each."""

    def __init__(self, trusted: TrustedKeys, master: MasterKey | None = None) -> None:
        self._trusted = trusted
        self._keys = KeyRing(Sealer(master)) if master is not None else None
        self._group_keys = GroupKeyRing(master)
        self._verified: dict[str, Approval] = {}
        self._readable: dict[str, Mapping[str, Any]] = {}
        """Groups' latest rows that could be read."""

    def build(
        self,
        stamp: str,
        groups: Iterable[Mapping[str, Any]],
        versions: Iterable[Mapping[str, Any]],
        providers: Iterable[Mapping[str, Any]] = (),
        classes: Iterable[Mapping[str, Any]] = (),
    ) -> Snapshot:
        """A snapshot of the `snapshot_…` rows (queries.sql). JSON columns are texts. Blocks: a KMS may be asked.

        A group that cannot be read goes on as its latest row that could be says, though with versions, approvals and
        providers as they are now: whom nobody lets through any more does not serve because of it.
        """
        known = _Known(
            providers={(row["workspace"], row["name"]): row for row in providers},
            brought=Brought(classes=classified(classes)),
        )
        broken = self._open(known.providers)
        for row in versions:
            version = Version(row["urn"], row["version"], row["digest"])
            if row["withdrawn_at"] is not None:
                reason = withdrawn(version, moment_of(row["withdrawn_at"]), row["withdrawn_why"])
                known.refusals[row["workspace"], version] = Refusal(version, reason)
                continue
            try:
                known.brought.guards[row["workspace"], version] = guards_of(version, row.get("guardrails") or "[]")
                statement = row["statement"]
                known.verified[statement] = self._approval(statement)
                require_bound(row["workspace"], version, known.verified[statement])
                known.targets[row["workspace"], version] = Target.at(
                    version, row["endpoint"], row["model_name"], inputs_of(row["signature"])
                )
                known.statements[row["workspace"], version] = statement
            except Refused as refused:
                known.refusals[row["workspace"], version] = Refusal(version, refused.message)
        routes: dict[str, Route] = {}
        unread: dict[str, Unread] = {}
        readable: dict[str, Mapping[str, Any]] = {}
        for row in groups:
            name = row["name"]
            try:
                routes[name] = self._route(row, known)
                readable[name] = row
            except Exception as error:  # settings of a newer router, or damage: one group's never hold back the others
                last = self._before(row)
                revision = None
                if last is not None:
                    readable[name] = last
                    with suppress(Exception):
                        routes[name] = self._route(last, known)
                        revision = routes[name].group.revision
                unread[name] = Unread(row["workspace"], revision, repr(error)[:500])
        self._verified, self._readable = known.verified, readable
        return Snapshot(stamp, routes, (*known.refusals.values(), *known.refused_here), broken, unread)

    def readable(self, groups: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The groups as they were built last, for one that starts with these rows."""
        return [self._readable.get(row["name"], row) for row in groups]

    def _before(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The same group's latest row that could be read; not that of another one which had the name."""
        last = self._readable.get(row["name"])
        if last is None or last["workspace"] != row["workspace"]:
            return None
        return last if moment_of(last["created_at"]) == moment_of(row["created_at"]) else None

    def _route(self, row: Mapping[str, Any], known: _Known) -> Route:
        group = group_of(row)
        # No settings in a snapshot that was kept before there were any.
        settings = GroupSettings(orjson.loads(row.get("settings") or "{}"))
        prices = settings.of(Caps).prices
        arms = tuple(Arm.of(group, one, *self._served(group, one, known)).priced(prices) for one in group.versions)
        shadows = tuple(
            Arm.of(group, one.version, *self._served(group, one.version, known), role="shadow").priced(prices)
            for one in group.shadows
        )
        routing, plan = settings.of(Routing), None
        if routing != Routing():
            plan = Plan.of(routing, arms, lambda arm, to: self._elsewhere(group, arms, arm, to, known, prices))
        keys = self._group_keys.keys_of(group.workspace, group.name, orjson.loads(row.get("keys") or "{}"))
        return Route.of(group, arms, moment_of(row["created_at"]), settings, keys, plan, shadows, known.brought)

    def _served(self, group: Group, version: Version, known: _Known) -> tuple[Served | None, Refusal | None]:
        """Who answers for a version in the group, or why nobody does."""
        hosted = group.host_of(version.urn, version.version)
        if hosted is None:
            return known.targets.get((group.workspace, version)), known.refusals.get((group.workspace, version))
        try:
            return self._at_provider(group, version, hosted, known), None
        except MintmarkError as refused:
            refusal = Refusal(version, refused.message)
            known.refused_here.append(refusal)
            return None, refusal

    def _at_provider(self, group: Group, version: Version, hosted: Hosted, known: _Known) -> ProviderTarget:
        """Raises what `_provided` does, and SignatureRefused."""
        known.verified[hosted.statement] = self._approval(hosted.statement)
        require_bound(group.workspace, version, known.verified[hosted.statement])
        return self._provided(group.workspace, hosted, known.providers)

    def _elsewhere(
        self, group: Group, arms: tuple[Arm, ...], chosen: Arm, wanted: FailoverTarget, known: _Known,
        prices: Sequence[GroupPrice],
    ) -> Arm | None:  # fmt: skip
        """Who answers in place of the chosen arm. As with any arm, nobody does without a verified approval."""
        version, arm = chosen.version, chosen
        if wanted.version is not None:
            name = (wanted.version.urn, wanted.version.version)
            deployed = [version for workspace, version in known.targets if workspace == group.workspace]
            there = (*group.versions, *(one.version for one in group.hosted), *deployed)
            found = next((one for one in there if (one.urn, one.version) == name), None)
            if found is None:
                return None
            version = found
            same = next((one for one in arms if one.version == version), None)
            arm = same or Arm.of(group, version, *self._served(group, version, known), role="failover")
        if wanted.provider is None:
            return arm.priced(prices)
        held = group.host_of(version.urn, version.version)
        statement = held.statement if held is not None else known.statements.get((group.workspace, version))
        if statement is None:
            return None
        try:
            hosted = Hosted(version, wanted.provider, wanted.model, statement)
            return replace(arm, target=self._at_provider(group, version, hosted, known)).priced(prices)
        except MintmarkError as refused:
            known.refused_here.append(Refusal(version, f"At {wanted.provider}: {refused.message}"))
            return None

    def _approval(self, statement: str) -> Approval:
        return self._verified.get(statement) or verified_approval(statement, self._trusted)

    def _open(self, providers: Mapping[tuple[str, str], Mapping[str, Any]]) -> tuple[str, ...]:
        """Open the providers' keys; returns what could not be opened."""
        if self._keys is None:
            return ()
        sealed: dict[Belonging, Sealed] = {}
        broken: list[str] = []
        for (workspace, name), row in providers.items():
            try:
                if row["sealed"] is not None:
                    sealed[Belonging(workspace, name)] = Sealed.from_json(row["sealed"])
            except SealBroken as error:
                broken.append(f"{name}: {error.message}")
        broken.extend(f"{of.provider}: {error.message}" for of, error in self._keys.take(sealed).items())
        return tuple(broken)

    def _provided(
        self, workspace: str, hosted: Hosted, providers: Mapping[tuple[str, str], Mapping[str, Any]]
    ) -> ProviderTarget:
        """Raises ApprovalRefused, SealBroken, FieldRefused, AddressRefused."""
        row = providers.get((workspace, hosted.provider))
        if row is None:
            raise ApprovalRefused(f"{hosted.version} is asked of the provider {hosted.provider!r}, which is not there.")
        secret = None
        if row["sealed"] is not None:
            if self._keys is None:
                raise SealBroken(
                    "This gateway has no master key to open a key with: set MINTMARK_ROUTER_MASTER_KEY_FILE."
                )
            secret = self._keys.secret_of(Belonging(workspace, hosted.provider))
        return ProviderTarget.of(hosted, orjson.loads(row["configuration"]), secret)
