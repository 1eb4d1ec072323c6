"""Rows of datasets: keeping, locks and holds, counted rows, work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from services.registry.domain.assets import Version
from services.registry.errors import GoldenLocked
from shared.db.database import Transaction
from shared.events.base import Actor
from shared.events.upstream import DatasetVersion, Manifest, Training

What = Literal["golden", "hold"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One word on a golden lock or a legal hold."""

    what: str
    revision: int
    holds: bool
    who: Actor
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long bytes are kept, and what became of them."""

    expires_at: datetime | None
    released_at: datetime | None
    plan: dict[str, Any] | None
    erased_at: datetime | None
    receipt: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Counted:
    """A split's rows; `digest` names the file of their hashes, until that is erased."""

    split: str
    rows: int
    distinct: int
    halvings: int
    digest: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done for a version, held by a lease."""

    workspace: str
    urn: str
    version: int
    what: str
    attempts: int
    lease: UUID


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of a version; `shared` when something else of the workspace rests on them. No size: they are not held."""

    digest: str
    size: int | None
    shared: bool


@dataclass(frozen=True, slots=True)
class Expired:
    """A version that may be kept no longer."""

    workspace: str
    urn: str
    version: int
    expires_at: datetime | None = None


class DatasetStore:
    """Tables dataset, dataset_file, dataset_move, dataset_work, dataset_sketch."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def registered(self, tx: Transaction, version: Version) -> None:
        """A new version: a dataset's keeping and counting, or the comparison of a model's training and golden sets."""
        if version.content["kind"] == "dataset":
            manifest = Manifest.model_validate(version.content["manifest"])
            days = manifest.retention_days
            await self._queries.add_dataset(
                tx.connection,
                **self._key(tx, version.ref.urn, version.ref.version),
                expires_at=None if days is None else _after(version.registered_at, days),
                digests=sorted({file.digest for file in manifest.files}),
                due_at=version.registered_at,
            )
        elif version.golden_set is not None and version.training.dataset is not None:
            key = self._key(tx, version.ref.urn, version.ref.version)
            await self._queries.ask_overlap(tx.connection, **key, due_at=version.registered_at)

    async def check_training(self, tx: Transaction, training: Training) -> None:
        """Raises GoldenLocked when a version says that it was trained on a locked golden set, or by a run that was."""
        if training.dataset is not None:
            await self.refuse_locked(tx, training.dataset)
        if training.run_id:
            rows = self._queries.locked_of_run(tx.connection, workspace=tx.workspace, node=f"run:{training.run_id}")
            async for row in rows:
                raise GoldenLocked(
                    f"run {training.run_id} was fed with {row['source']}, a golden set that was locked by then"
                )

    async def refuse_locked(self, tx: Transaction, dataset: DatasetVersion) -> None:
        """Raises GoldenLocked when nothing may be trained on a dataset version."""
        last = await self.last(tx, dataset.urn, dataset.version, "golden")
        if last is not None and last.holds:
            raise GoldenLocked(
                f"{dataset.urn}@{dataset.version} is a golden set, locked by {last.who.id} ({last.reason[:200]}); "
                "nothing may be trained on it"
            )

    async def hold(self, tx: Transaction, urn: str, version: int) -> Keeping | None:
        """A dataset version, held until commit; None where there is none."""
        row = await self._queries.hold_dataset(tx.connection, **self._key(tx, urn, version))
        return None if row is None else _keeping(row)

    async def keeping(self, tx: Transaction, urn: str, version: int) -> Keeping | None:
        row = await self._queries.dataset(tx.connection, **self._key(tx, urn, version))
        return None if row is None else _keeping(row)

    async def last(self, tx: Transaction, urn: str, version: int, what: What) -> Mark | None:
        row = await self._queries.last_move(tx.connection, **self._key(tx, urn, version), what=what)
        return None if row is None else _mark(row)

    async def marks(self, tx: Transaction, urn: str, version: int) -> list[Mark]:
        """Every lock and hold, newest first."""
        return [_mark(row) async for row in self._queries.moves(tx.connection, **self._key(tx, urn, version))]

    async def mark(self, tx: Transaction, urn: str, version: int, mark: Mark) -> None:
        await self._queries.add_move(
            tx.connection,
            **self._key(tx, urn, version),
            what=mark.what,
            revision=mark.revision,
            holds=mark.holds,
            who=mark.who.id,
            who_proven=mark.who.proven,
            reason=mark.reason,
            at=mark.at,
        )

    async def trained_on(self, tx: Transaction, urn: str, version: int) -> list[str]:
        """Versions that name this one as their training set; a hundred at most."""
        rows = self._queries.trained_on(tx.connection, workspace=tx.workspace, node=f"{urn}@{version}")
        return [row["destination"] async for row in rows]

    async def claim(self, tx: Transaction, lease: UUID, until: datetime) -> Work | None:
        row = await self._queries.claim_work(tx.connection, lease=lease, until=until)
        if row is None:
            return None
        return Work(row["workspace"], row["urn"], row["version"], row["what"], row["attempts"], row["lease"])

    async def renew(self, tx: Transaction, work: Work, until: datetime) -> None:
        key = self._key(tx, work.urn, work.version)
        await self._queries.renew_work(tx.connection, **key, what=work.what, lease=work.lease, until=until)

    async def end(self, tx: Transaction, work: Work, state: str, due_at: datetime, error: str | None = None) -> bool:
        """Give work back, done or not; False when somebody else has it by now."""
        key = self._key(tx, work.urn, work.version)
        return bool(
            await self._queries.end_work(
                tx.connection, **key, what=work.what, lease=work.lease, state=state, due_at=due_at, error=error
            )
        )

    async def work(self, tx: Transaction, urn: str, version: int) -> dict[str, tuple[str, str | None]]:
        """State and error of each piece of work."""
        rows = self._queries.work(tx.connection, **self._key(tx, urn, version))
        return {row["what"]: (row["state"], row["error"]) async for row in rows}

    async def put_counted(self, tx: Transaction, urn: str, version: int, counted: Counted) -> None:
        await self._queries.put_sketch(
            tx.connection,
            **self._key(tx, urn, version),
            split=counted.split,
            row_count=counted.rows,
            distinct_rows=counted.distinct,
            halvings=counted.halvings,
            digest=counted.digest,
            at=counted.at,
        )

    async def counted(self, tx: Transaction, urn: str, version: int) -> list[Counted]:
        rows = self._queries.sketches(tx.connection, **self._key(tx, urn, version))
        return [
            Counted(row["split"], row["row_count"], row["distinct_rows"], row["halvings"], row["digest"], row["at"])
            async for row in rows
        ]

    async def expired(self, tx: Transaction, now: datetime, most: int) -> list[Expired]:
        """Versions whose time is over: of all workspaces, or of the transaction's."""
        rows = self._queries.expired(tx.connection, now=now, most=most)
        return [Expired(row["workspace"], row["urn"], row["version"], row["expires_at"]) async for row in rows]

    async def bytes_of(self, tx: Transaction, urn: str, version: int) -> list[Bytes]:
        rows = self._queries.files_of(tx.connection, **self._key(tx, urn, version))
        return [Bytes(row["digest"], row["size"], row["shared"]) async for row in rows]

    async def release(
        self, tx: Transaction, urn: str, version: int, at: datetime, plan: dict[str, Any], digests: Sequence[str]
    ) -> None:
        key = self._key(tx, urn, version)
        await self._queries.release(tx.connection, **key, released_at=at, plan=plan, digests=list(digests))

    async def released(self, tx: Transaction, before: datetime, most: int) -> list[Expired]:
        rows = self._queries.released(tx.connection, before=before, most=most)
        return [Expired(row["workspace"], row["urn"], row["version"]) async for row in rows]

    async def alone_with(self, tx: Transaction, digests: Sequence[str]) -> bool:
        """Whether nobody claims these bytes (`Versions.claim`); if so, nobody can until commit."""
        return bool(await self._queries.alone_with(tx.connection, digests=list(digests)))

    async def rested_on(self, tx: Transaction, digest: str, expired: Expired) -> bool:
        """Whether anybody but the expired version needs these bytes; asked in the view of all."""
        key = {"workspace": expired.workspace, "urn": expired.urn, "version": expired.version}
        return bool(await self._queries.rested_on(tx.connection, digest=digest, **key))

    async def lone_sketches(self, tx: Transaction, expired: Expired) -> list[str]:
        """Files of row hashes that no other version shares; asked in the view of all."""
        rows = self._queries.lone_sketches(
            tx.connection, workspace=expired.workspace, urn=expired.urn, version=expired.version
        )
        return [row["digest"] async for row in rows]

    async def erased(self, tx: Transaction, urn: str, version: int, at: datetime, receipt: dict[str, Any]) -> None:
        await self._queries.erased(tx.connection, **self._key(tx, urn, version), erased_at=at, receipt=receipt)

    def _key(self, tx: Transaction, urn: str, version: int) -> dict[str, Any]:
        return {"workspace": tx.workspace, "urn": urn, "version": version}


def _after(at: datetime, days: int) -> datetime | None:
    try:
        return at + timedelta(days=days)
    except OverflowError:
        return None  # longer than the calendar


def _keeping(row: Any) -> Keeping:
    return Keeping(row["expires_at"], row["released_at"], row["plan"], row["erased_at"], row["receipt"])


def _mark(row: Any) -> Mark:
    who = Actor(id=row["who"], proven=row["who_proven"])
    return Mark(row["what"], row["revision"], row["holds"], who, row["reason"], row["at"])
