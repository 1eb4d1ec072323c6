"""What policy says: protected labels, verdicts, approvals, waivers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.prompts.domain.standing import Approval, Standing, Verdict
from services.prompts.store.versions import PromptVersion
from shared.db.database import Transaction
from shared.events.policy import ApprovalDecided, GateDecided, WaiverSigned


class Standings:
    """Read models; each keeps the newest word, so that the order of topics does not matter."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def protect(self, tx: Transaction, number: int, labels: list[str]) -> None:
        await self._queries.protect_labels(tx.connection, workspace=tx.workspace, number=number, labels=labels)

    async def protected(self, tx: Transaction) -> frozenset[str]:
        """Labels that the workspace protects; none before policy said so."""
        return frozenset(await self._queries.protected_labels(tx.connection, workspace=tx.workspace) or ())

    async def gated(self, tx: Transaction, event: GateDecided) -> None:
        waivers = sorted({rule.waiver_id for rule in event.rules if rule.waiver_id is not None})
        await self._queries.keep_verdict(
            tx.connection,
            workspace=tx.workspace,
            name=event.asset.name,
            version=event.asset.version,
            digest=event.asset.digest,
            verdict=event.verdict,
            waivers=waivers,
            binding=event.binding,
            decided_at=event.decided_at,
        )

    async def approved(self, tx: Transaction, event: ApprovalDecided) -> None:
        await self._queries.keep_approval(
            tx.connection,
            workspace=tx.workspace,
            name=event.asset.name,
            version=event.asset.version,
            digest=event.asset.digest,
            decision=event.decision,
            approver=event.approver.id,
            binding=event.binding,
            expires_at=event.expires_at,
            decided_at=event.decided_at,
        )

    async def waived(self, tx: Transaction, event: WaiverSigned) -> None:
        await self._queries.keep_waiver(
            tx.connection,
            workspace=tx.workspace,
            waiver_id=event.waiver_id,
            name=event.asset.name,
            version=event.asset.version,
            digest=event.asset.digest,
            measure=event.measure,
            expires_at=event.expires_at,
            withdrawn_at=event.withdrawn_at,
        )

    async def of(self, tx: Transaction, version: PromptVersion, now: datetime) -> Standing:
        """What was said of the version that the registry made of it."""
        if version.asset_version is None or version.asset_digest is None:
            return Standing(None)
        asked = {"workspace": tx.workspace, "name": version.name, "version": version.asset_version}
        gate = await self._queries.verdict(tx.connection, **asked)
        approval = await self._queries.approval(tx.connection, **asked)
        waivers = await self._queries.waivers_in_force(tx.connection, **asked, digest=version.asset_digest, now=now)
        return Standing(
            version.asset_digest,
            Verdict(gate["digest"], gate["verdict"], frozenset(gate["waivers"]), gate["binding"]) if gate else None,
            Approval(**{name: approval[name] for name in Approval.__slots__}) if approval else None,
            frozenset(waivers or ()),
        )
