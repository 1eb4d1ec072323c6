"""Rows of the router's schema as values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.router.approval import Deployed
from services.router.domain import (
    Buckets,
    Challenger,
    Change,
    Group,
    Hosted,
    Revision,
    Shadow,
    UnitRule,
    Version,
    hosted_of,
    log_table,
    withdrawn,
)
from shared.db.database import Transaction
from shared.events.policy import ClassificationChanged

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One revision of a group: the whole group, and who made it so, when, why, on what evidence."""

    change: Change
    group: Group
    who: str
    why: str
    evidence: dict[str, Any]
    at: datetime
    created_at: datetime
    unavailable: str | None = None
    """Why the champion of a group in force answers nowhere; None when it answers, and of groups that were."""

    @property
    def revision(self) -> Revision:
        return Revision(self.change, self.group)


@dataclass(frozen=True, slots=True)
class Word:
    """One word about a request: `label` is a true label or another text, `value` the number where it is one."""

    id: UUID
    request_id: UUID
    metric: str
    value: float | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """What a section of a group's settings was from a revision on."""

    group: str
    section: str
    revision: int
    value: dict[str, Any]
    who: str
    why: str
    at: datetime


class Store:
    """Reads and writes in a transaction that it is given."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    # -- what may be served

    async def keep_deployment(
        self,
        tx: Transaction,
        deployed: Deployed,
        deployment_id: UUID,
        signature: dict[str, Any],
        guardrails: list[dict[str, Any]],
        *,
        proven: bool,
    ) -> None:
        version = deployed.version
        await self._sql.upsert_served_version(
            tx.connection, workspace=tx.workspace, urn=version.urn, version=version.version, digest=version.digest,
            deployment_id=deployment_id, target=deployed.target, endpoint=deployed.endpoint,
            model_name=deployed.model_name, statement=deployed.statement, signature=signature,
            guardrails=guardrails, completed_at=deployed.completed_at, proven=proven,
        )  # fmt: skip

    async def withdraw(
        self, tx: Transaction, version: Version, deployment_id: UUID, target: str, at: datetime, why: str
    ) -> bool:
        """The version answers no longer; False when it was deployed again since or answered nowhere before."""
        done = await self._sql.withdraw_version(
            tx.connection, urn=version.urn, version=version.version, deployment_id=deployment_id, target=target,
            withdrawn_at=at, why=why,
        )  # fmt: skip
        return bool(done == "UPDATE 1")

    async def classify(self, tx: Transaction, event: ClassificationChanged) -> None:
        """The asset's classes from now on; a cap in another currency than USD is none that costs can be held to."""
        await self._sql.classify(
            tx.connection, workspace=tx.workspace, urn=event.urn, risk=event.risk, cost=event.cost,
            monthly_usd=event.monthly_cap if event.currency == "USD" else None, who=event.actor.id, why=event.reason,
        )  # fmt: skip

    async def brought_guards(self, tx: Transaction, name: str) -> list[tuple[str, list[dict[str, Any]]]]:
        """`urn@version` and the guards that come with it, of each version of a group that has any."""
        rows = self._sql.brought_guards(tx.connection, name=name)
        return [(f"{row['urn']}@{row['version']}", row["guardrails"]) async for row in rows]

    async def knows_version(self, tx: Transaction, version: Version) -> bool:
        """True when a deployment of it was heard of, whatever became of it."""
        return bool(await self._sql.version_is_known(tx.connection, urn=version.urn, version=version.version))

    async def keep_decision(
        self, tx: Transaction, version: Version, decision: str, reason: str, statement: Any, decided_at: datetime
    ) -> None:
        await self._sql.upsert_decision(
            tx.connection, workspace=tx.workspace, urn=version.urn, version=version.version, digest=version.digest,
            decision=decision, reason=reason, statement=statement, decided_at=decided_at,
        )  # fmt: skip

    async def deployed(self, tx: Transaction, urn: str, version: int) -> Deployed | None:
        row = await self._sql.deployed_version(tx.connection, urn=urn, version=version)
        return None if row is None else _deployed(row)

    async def approved(self, tx: Transaction, urn: str, version: int) -> Deployed | None:
        """The last word on a version that need not be deployed anywhere; None when there is no signed one."""
        row = await self._sql.decided_version(tx.connection, urn=urn, version=version)
        return None if row is None else _approved(row)

    async def deployments(self, tx: Transaction, after: tuple[str, int], most: int) -> list[Deployed]:
        rows = self._sql.deployed_versions(tx.connection, after_urn=after[0], after_version=after[1], most=most)
        return [_deployed(row) async for row in rows]

    # -- groups

    async def add_group(self, tx: Transaction, entry: Entry) -> None:
        """The group, its first revision and its table. A taken name is a UniqueViolationError."""
        group = entry.group
        await self._sql.insert_group(
            tx.connection, workspace=tx.workspace, name=group.name, log_table=log_table(group.name),
            unit_header=group.unit_rule.header, unit_body_id=group.unit_rule.use_body_id, created_at=entry.created_at,
        )  # fmt: skip
        await self._append(tx, entry)
        await self._sql.create_log_table(tx.connection, name=group.name, workspace=tx.workspace)

    async def swap(self, tx: Transaction, expected: int, entry: Entry) -> bool:
        """Put the next revision in force if `expected` still is the current one; gateways hear of it at commit."""
        swapped = await self._sql.swap_revision(tx.connection, name=entry.group.name, expected=expected)
        if swapped is None:
            return False
        await self._append(tx, entry)
        return True

    async def _append(self, tx: Transaction, entry: Entry) -> None:
        group = entry.group
        await self._sql.append_revision(
            tx.connection, workspace=tx.workspace, group_name=group.name, revision=group.revision,
            change=entry.change.value, champion_urn=group.champion.urn, champion_version=group.champion.version,
            champion_digest=group.champion.digest, challengers=[_challenger(one) for one in group.challengers],
            shadows=[_shadow(one) for one in group.shadows], hosted=[_host(one) for one in group.hosted],
            who=entry.who, why=entry.why, evidence=entry.evidence, at=entry.at,
        )  # fmt: skip

    async def challenged_by(self, tx: Transaction, version: Version) -> list[str]:
        """Names of the groups in which the version is a challenger."""
        rows = self._sql.groups_challenged_by(tx.connection, urn=version.urn, version=version.version)
        return [row["name"] async for row in rows]

    async def group(self, tx: Transaction, name: str) -> Entry | None:
        row = await self._sql.group_now(tx.connection, name=name)
        return None if row is None else _entry(row)

    async def groups(self, tx: Transaction, after: str, most: int) -> list[Entry]:
        return [_entry(row) async for row in self._sql.groups_now(tx.connection, after=after, most=most)]

    async def history(self, tx: Transaction, name: str) -> list[Entry]:
        """Oldest first."""
        return [_entry(row) async for row in self._sql.group_history(tx.connection, name=name)]

    async def history_since(self, tx: Transaction, name: str, revision: int) -> list[Entry]:
        """From the revision on, oldest first."""
        rows = self._sql.group_history_since(tx.connection, name=name, revision=revision)
        return [_entry(row) async for row in rows]

    async def first_of_champion(self, tx: Transaction, name: str) -> int:
        """The revision at which the present champion became it."""
        return int(await self._sql.first_of_champion(tx.connection, name=name))

    async def group_at(self, tx: Transaction, name: str, at: datetime) -> Entry | None:
        row = await self._sql.group_at(tx.connection, name=name, at=at)
        return None if row is None else _entry(row)

    async def group_revision(self, tx: Transaction, name: str, revision: int) -> Entry | None:
        row = await self._sql.group_revision(tx.connection, name=name, revision=revision)
        return None if row is None else _entry(row)

    # -- what groups are told beside who serves them

    async def settings(self, tx: Transaction, name: str, revision: int) -> dict[str, Any]:
        """`{section: value}` as in force at a revision."""
        found: dict[str, Any] = await self._sql.group_settings(tx.connection, name=name, revision=revision)
        return found

    async def names(self, tx: Transaction) -> dict[str, set[str]]:
        """What settings may name: versions that are `deployed` or `approved` as `urn@version`, `provider`, `group`."""
        found: dict[str, set[str]] = {}
        async for row in self._sql.names(tx.connection):
            found.setdefault(row["kind"], set()).add(row["name"])
        return found

    async def add_setting(self, tx: Transaction, setting: Setting) -> None:
        await self._sql.add_group_setting(
            tx.connection, workspace=tx.workspace, group_name=setting.group, section=setting.section,
            revision=setting.revision, value=setting.value, who=setting.who, why=setting.why, at=setting.at,
        )  # fmt: skip

    async def setting_history(self, tx: Transaction, name: str, section: str) -> list[Setting]:
        """Oldest first."""
        rows = self._sql.group_setting_history(tx.connection, name=name, section=section)
        return [
            Setting(name, section, row["revision"], row["value"], row["who"], row["why"], row["at"])
            async for row in rows
        ]

    # -- what was said about requests

    async def add_feedback(
        self, tx: Transaction, group: str, who: str, words: Sequence[Word], received_at: datetime
    ) -> None:
        """Words that are known already change nothing."""
        await self._sql.insert_feedback(
            tx.connection, workspace=tx.workspace, group_name=group, who=who, received_at=received_at,
            ids=[word.id for word in words], request_ids=[word.request_id for word in words],
            metrics=[word.metric for word in words], numbers=[word.value for word in words],
            labels=[word.label for word in words],
        )  # fmt: skip

    async def known_requests(self, tx: Transaction, group: str, request_ids: Iterable[UUID]) -> int:
        return int(await self._sql.known_requests(tx.connection, name=group, request_ids=list(request_ids)))


def _deployed(row: Row) -> Deployed:
    return Deployed(
        version=Version(row["urn"], row["version"], row["digest"]),
        target=row["target"],
        endpoint=row["endpoint"],
        model_name=row["model_name"],
        statement=row["statement"],
        completed_at=row["completed_at"],
        decision=row["decision"],
        decision_reason=row["decision_reason"],
        decided=row["decided"],
    )


def _approved(row: Row) -> Deployed:
    return Deployed(
        version=Version(row["urn"], row["version"], row["digest"]),
        target="provider",
        endpoint="",
        model_name="",
        statement=row["statement"] or {},
        completed_at=row["decided_at"],
        decision=row["decision"],
        decision_reason=row["reason"],
    )


def _host(hosted: Hosted) -> dict[str, Any]:
    return {**asdict(hosted.version), "provider": hosted.provider, "model": hosted.model, "statement": hosted.statement}


def _challenger(challenger: Challenger) -> dict[str, Any]:
    version = challenger.version
    return {
        "urn": version.urn,
        "version": version.version,
        "digest": version.digest,
        "buckets": challenger.buckets.ranges,
    }


def _shadow(shadow: Shadow) -> dict[str, Any]:
    version = shadow.version
    return {"urn": version.urn, "version": version.version, "digest": version.digest, "share_bp": shadow.share_bp}


def _entry(row: Row) -> Entry:
    challengers = tuple(
        Challenger(
            Version(one["urn"], one["version"], one["digest"]),
            Buckets(tuple((start, end) for start, end in one["buckets"])),
        )
        for one in row["challengers"]
    )
    group = Group(
        name=row["group_name"],
        workspace=row["workspace"],
        revision=row["revision"],
        champion=Version(row["champion_urn"], row["champion_version"], row["champion_digest"]),
        challengers=challengers,
        unit_rule=UnitRule(row["unit_header"], row["unit_body_id"]),
        shadows=tuple(
            Shadow(Version(one["urn"], one["version"], one["digest"]), one["share_bp"]) for one in row["shadows"]
        ),
        hosted=hosted_of(row["hosted"]),
    )
    is_hosted = group.host_of(group.champion.urn, group.champion.version) is not None
    gone_at = row.get("withdrawn_at") if not is_hosted else None
    unavailable = withdrawn(group.champion, gone_at, row["withdrawn_why"]) if gone_at else None
    if retired_at := row.get("retired_at"):
        unavailable = f"The group was retired at {retired_at.isoformat()} and is to be deleted; it takes no requests."
    return Entry(
        Change(row["change"]), group, row["who"], row["why"], row["evidence"], row["at"], row["created_at"], unavailable
    )
