"""What prompts did in traffic: which versions close over them, and the newest figures of those in each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db.database import Transaction
from shared.events.base import AssetRef
from shared.events.router import LiveFigures


@dataclass(frozen=True, slots=True)
class LiveEvidence:
    """What `asset`, a version that closes over the prompt, did in a group's traffic from `since` until `until`."""

    group: str
    asset: str
    role: str
    since: datetime
    until: datetime
    requests: int
    errors: int
    latency_ms: dict[str, float]
    measures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LiveCandidate:
    """A version that could be taken, with one word on it from traffic, if there is any; `rows` are requests."""

    name: str
    title: str
    version: int
    labels: list[str]
    group: str | None
    asset: str | None
    role: str | None
    since: datetime | None
    measures: dict[str, Any] | None
    rows: int | None
    at: datetime | None


class LiveStore:
    """Tables closure and live_figures. Either may be heard of first: they meet when somebody asks."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def close_over(self, tx: Transaction, asset: AssetRef, prompts: Sequence[AssetRef]) -> None:
        await self._queries.close_over(
            tx.connection, workspace=tx.workspace, urn=asset.urn, version=asset.version, digest=asset.digest,
            names=[one.name for one in prompts], prompt_versions=[one.version for one in prompts],
            prompt_digests=[one.digest for one in prompts],
        )  # fmt: skip

    async def keep(self, tx: Transaction, group: str, since: datetime, until: datetime, figures: LiveFigures) -> None:
        """An older `until` than what is known changes nothing."""
        asset = figures.asset
        await self._queries.keep_figures(
            tx.connection, workspace=tx.workspace, urn=asset.urn, version=asset.version, group_name=group,
            is_shadow=figures.role == "shadow", digest=asset.digest, role=figures.role, since=since, until=until,
            requests=figures.requests, errors=figures.errors, latency_ms=figures.latency_ms,
            measures={name: measure.model_dump(mode="json") for name, measure in figures.measures.items()},
        )  # fmt: skip

    async def of(self, tx: Transaction, name: str, version: int, digest: str) -> list[LiveEvidence]:
        """Of one version of a prompt, by its number and digest at the registry; newest first."""
        rows = self._queries.live_evidence_of(
            tx.connection, workspace=tx.workspace, name=name, prompt_version=version, prompt_digest=digest
        )
        return [LiveEvidence(**{field: row[field] for field in LiveEvidence.__slots__}) async for row in rows]

    async def candidates(self, tx: Transaction, group: str | None, name: str | None, most: int) -> list[LiveCandidate]:
        """Labelled and newest versions with the newest figures of each version that closes over them."""
        rows = self._queries.live_candidates(
            tx.connection, workspace=tx.workspace, group_name=group, name=name, most=most
        )
        return [LiveCandidate(**{field: row[field] for field in LiveCandidate.__slots__}) async for row in rows]
