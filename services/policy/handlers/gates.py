"""Gates: what an evaluation leads to, and which rules are in force."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any
from uuid import UUID

from services.policy import domain
from services.policy.domain import SERVICE, Gate, Judgement, Unverified, Waived
from services.policy.errors import DigestDiffers, UnknownGate
from services.policy.store import Asset, Row, Store, Verdict, WaiverStore
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Early
from shared.events.base import Actor, AssetRef
from shared.events.envelope import Received
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import ApprovalDecided, GateDecided, PolicyPublished, RuleOutcome
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.http import etag, matches
from shared.ids import digest_of, new_id

DEFAULT = "default"


def shipped() -> dict[str, dict[str, Any]]:
    """The rules that every workspace starts with, by gate name."""
    folder = files("services.policy").joinpath("gates")
    return {
        entry.name.removesuffix(".json"): json.loads(entry.read_text())
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".json")
    }


@dataclass(frozen=True, slots=True)
class Basis:
    """What a verdict rests on; no evaluation where a waiver sets it aside."""

    evaluation_id: UUID | None
    report: str | None
    policy: str
    policy_version: int
    binding: str


class Gates:
    """`unverified` is the installation's answer to an author whom nothing proves."""

    def __init__(
        self, database: Database, store: Store, waivers: WaiverStore, clock: Clock, unverified: Unverified
    ) -> None:
        self._database = database
        self._store = store
        self._waivers = waivers
        self._clock = clock
        self._unverified = unverified
        self._shipped = shipped()

    async def know_asset(self, tx: Transaction, received: Received[AssetRegistered]) -> None:
        """Keep what a later gate and approval need of the version."""
        await self._store.add_asset(tx, received.event)

    async def know_dataset(self, tx: Transaction, received: Received[DatasetRegistered]) -> None:
        """Keep what a gate and a dataset's approval need of it."""
        await self._store.add_dataset(tx, received.event)

    async def judge(self, tx: Transaction, received: Received[EvalCompleted]) -> None:
        """The verdict on an evaluation. Raises Early while the version is not known here."""
        event = received.event
        asset = await self._asset(tx, event.asset)
        gate = await self._gate_for(tx, asset.task)
        dataset = await self._store.dataset(tx, event.golden_set.urn, event.golden_set.version)
        if dataset is None:
            raise Early(f"{event.golden_set.urn}@{event.golden_set.version} is not known here yet")
        if event.golden_set.digest not in (None, dataset.ref.digest):
            raise DigestDiffers(
                f"{dataset.ref} has digest {dataset.ref.digest}, but {event.golden_set.digest} was evaluated on"
            )
        judgement = domain.judge(gate, event.measures, dataset.sensitive, asset.author, self._unverified)
        await self._decide(tx, asset, event.evaluation_id, dataset.ref.digest, event.report, gate, judgement)

    async def hold(self, tx: Transaction, received: Received[EvalFailed]) -> None:
        """An evaluation that failed is no data: the version is held, whatever was measured before."""
        event = received.event
        asset = await self._asset(tx, event.asset)
        gate = await self._gate_for(tx, asset.task)
        # The dataset may be unknown here for the very reason that the evaluation failed.
        wanted = asset.golden_set
        dataset = await self._store.dataset(tx, wanted.urn, wanted.version) if wanted else None
        judgement = domain.failed(gate, dataset.sensitive if dataset else (), event.code, event.reason)
        await self._decide(
            tx, asset, event.evaluation_id, dataset.ref.digest if dataset else None, None, gate, judgement
        )

    async def _asset(self, tx: Transaction, ref: AssetRef) -> Asset:
        asset = await self._store.asset(tx, ref.urn, ref.version, lock=True)
        if asset is None:
            raise Early(f"{ref} is not known here yet")
        if asset.ref.digest != ref.digest:
            raise DigestDiffers(f"{ref} has digest {asset.ref.digest}, but what was evaluated has {ref.digest}")
        return asset

    async def _decide(
        self,
        tx: Transaction,
        asset: Asset,
        evaluation_id: UUID,
        dataset: str | None,
        report: str | None,
        gate: Gate,
        judgement: Judgement,
    ) -> None:
        bound = domain.binding(asset.ref, asset.artefact, asset.prompts, dataset, report)
        basis = Basis(evaluation_id, report, gate.name, gate.version, bound)
        verdict = await self._conclude(tx, asset, basis, judgement.rules, judgement.reason)
        if verdict.verdict == "reject":
            await self._withdraw(tx, asset, verdict)

    async def decide_again(self, tx: Transaction, asset: Asset, *, withdrawn: bool = False) -> Verdict:
        """The newest gate once more, since a waiver came or (`withdrawn`) went.

        A version that nothing evaluated gets its first gate here, when a waiver sets the evaluation aside.
        """
        last = await self._store.newest_gate(tx, asset.ref.urn, asset.ref.version)
        if last is None:
            gate = await self._gate_for(tx, asset.task)
            bound = domain.binding(asset.ref, asset.artefact, asset.prompts, None, None)
            basis = Basis(None, None, gate.name, gate.version, bound)
            rules = domain.unevaluated(asset.author, gate.unverified_author or self._unverified)
        else:
            basis = Basis(last.evaluation_id, last.report, last.policy, last.policy_version, last.binding)
            rules = domain.without_waivers(RuleOutcome.model_validate(rule) for rule in last.rules)
        verdict = await self._conclude(tx, asset, basis, rules, domain.summary_of(rules))
        if verdict.verdict == "reject" or (withdrawn and verdict.verdict != "pass"):
            await self._withdraw(tx, asset, verdict)
        return verdict

    async def _conclude(
        self, tx: Transaction, asset: Asset, basis: Basis, rules: tuple[RuleOutcome, ...], reason: str
    ) -> Verdict:
        """Keep and say the verdict on rules, those set aside that a waiver in force covers."""
        now = self._clock()
        waivers = [
            Waived(
                row["waiver_id"],
                row["measure"],
                (row["proposer"]["id"], row["signer"]["id"]),
                row["expires_at"],
            )
            for row in await self._waivers.in_force(tx, asset.ref, now)
        ]
        rules, until = domain.waive(rules, waivers)
        verdict = Verdict(
            id=0,
            gate_id=new_id(),
            evaluation_id=basis.evaluation_id,
            verdict=domain.verdict_of(rules),
            rules=tuple(rule.model_dump(mode="json") for rule in rules),
            reason=domain.summary_of(rules) if until else reason,
            policy=basis.policy,
            policy_version=basis.policy_version,
            binding=basis.binding,
            report=basis.report,
            decided_at=now,
            expires_at=until,
        )
        await self._store.add_gate(tx, asset.ref, verdict)
        tx.emit(
            GateDecided(
                gate_id=verdict.gate_id,
                asset=asset.ref,
                evaluation_id=basis.evaluation_id,
                verdict=domain.verdict_of(rules),
                rules=rules,
                reason=verdict.reason,
                policy_version=basis.policy_version,
                binding=basis.binding,
                decided_at=now,
            )
        )
        return verdict

    async def _withdraw(self, tx: Transaction, asset: Asset, by: Verdict) -> None:
        """A version that was let through and no longer is: say so, since its old statement is still well signed."""
        last = await self._store.newest_approval(tx, asset.ref.urn, asset.ref.version)
        gate = await self._store.newest_gate(tx, asset.ref.urn, asset.ref.version)
        if last is None or last.decision == "rejected" or gate is None:
            return
        now, approval_id = self._clock(), new_id()
        why = f"withdrawn by gate {by.gate_id}: {by.reason}"[:4000]
        await self._store.add_approval(tx, approval_id, gate, asset, "rejected", SERVICE, why, None, None, now)
        tx.emit(
            ApprovalDecided(
                approval_id=approval_id,
                asset=asset.ref,
                decision="rejected",
                approver=SERVICE,
                author=asset.author,
                reason=why,
                binding=gate.binding,
                decided_at=now,
            )
        )

    async def _gate_for(self, tx: Transaction, task: str | None) -> Gate:
        """The gate of the task, the workspace's own or a shipped one; tasks without either share `default`."""
        for name in (task, DEFAULT):
            row = await self._published(tx, name) if name else None
            if row is not None:
                return Gate.read(row["name"], row["number"], row["document"])
        raise UnknownGate(f"there is no gate {DEFAULT!r}")

    async def _published(self, tx: Transaction, name: str) -> Row | None:
        """The rules in force; a shipped gate becomes version 1 of its workspace when it is first asked for."""
        row = await self._store.gate_policy(tx, name)
        if row is None and name in self._shipped:
            await self._store.lock_gate_policy(tx, name)
            row = await self._store.gate_policy(tx, name)
            if row is None:
                row = await self._publish(tx, name, 1, self._shipped[name], SERVICE, "shipped with the release")
        return row

    async def _publish(
        self, tx: Transaction, name: str, number: int, document: dict[str, Any], actor: Actor, reason: str
    ) -> Row:
        now, digest = self._clock(), digest_of(document)
        await self._store.add_gate_policy(tx, name, number, document, digest, actor, reason, now)
        tx.emit(
            PolicyPublished(
                policy=f"gate/{name}", number=number, document=document, digest=digest, actor=actor, published_at=now
            )
        )
        return {
            "name": name,
            "number": number,
            "document": document,
            "digest": digest,
            "actor": actor.model_dump(),
            "reason": reason,
            "published_at": now,
        }

    async def publish(
        self, workspace: str, name: str, document: dict[str, Any], actor: Actor, reason: str, if_match: str | None
    ) -> Row:
        """A new version of a gate's rules, in force for what is evaluated from now on."""
        async with self._database.begin(workspace) as tx:
            await self._store.lock_gate_policy(tx, name)
            current = await self._published(tx, name)
            if current is not None:
                matches(if_match, etag(current["digest"]), required=False)
                if current["digest"] == digest_of(document):
                    return current
            return await self._publish(tx, name, current["number"] + 1 if current else 1, document, actor, reason)

    async def gate(self, workspace: str, name: str, *, number: int | None = None, at: datetime | None = None) -> Row:
        """The rules of a gate: in force now, at a time, or by number. Raises UnknownGate."""
        async with self._database.begin(workspace) as tx:
            current = await self._published(tx, name)
            if number is not None:
                current = await self._store.gate_policy_number(tx, name, number)
            elif at is not None:
                current = await self._store.gate_policy(tx, name, at)
            if current is None:
                raise UnknownGate(
                    f"there is no gate {name!r}" + (f" with version {number}" if number else f" at {at}" if at else "")
                )
            return current

    async def versions(self, workspace: str, name: str) -> list[Row]:
        """Every version, newest first. Raises UnknownGate."""
        async with self._database.begin(workspace) as tx:
            await self._published(tx, name)
            rows = await self._store.gate_policies(tx, name)
        if not rows:
            raise UnknownGate(f"there is no gate {name!r}")
        return rows

    async def names(self, workspace: str) -> list[str]:
        """Names of the gates, the shipped ones included."""
        async with self._database.begin(workspace) as tx:
            return sorted({*await self._store.gate_names(tx), *self._shipped})
