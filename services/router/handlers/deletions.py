"""The end of a group: it is retired at once, and its rows go once they are archived or a second person has agreed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from services.router.errors import RampRunning, UnknownGroup
from services.router.group_settings import GroupSettings, Rows
from services.router.handlers.archives import Archives
from services.router.handlers.groups import By, Groups, changed
from services.router.store import Row, Store
from services.router.tables.errors import DeletionRefused, NoDeletion, SecondPersonNeeded
from services.router.tables.store import TableStore
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.events.base import Actor
from shared.ids import new_id


@dataclass(frozen=True, slots=True)
class Deletion:
    """`state` is waiting (for a second person), pending (to be done by itself), kept or done."""

    id: UUID
    group: str
    policy: str
    reason: str
    asked_by: str
    asked_at: datetime
    agreed_by: str | None
    agreed_at: datetime | None
    kept_by: str | None
    done_at: datetime | None
    row_count: int | None

    @property
    def state(self) -> str:
        if self.done_at is not None:
            return "done"
        if self.kept_by is not None:
            return "kept"
        return "waiting" if self.policy == "drop" and self.agreed_by is None else "pending"


class Deletions:
    """`settle_s` is how long after the last request rows may be on their way from a spool to their table."""

    def __init__(
        self,
        database: Database,
        store: Store,
        tables: TableStore,
        groups: Groups,
        archives: Archives,
        clock: Clock,
        settle_s: float,
    ) -> None:
        self._database = database
        self._store = store
        self._tables = tables
        self._groups = groups
        self._archives = archives
        self._clock = clock
        self._settle = timedelta(seconds=settle_s)

    async def ask(self, by: By, name: str, confirmed: str) -> Deletion:
        """Retire the group and ask for its deletion, by the policy that its settings declare.

        `confirmed` is the name once more. Raises UnknownGroup, RevisionConflict, GroupRetired, DeletionRefused,
        RampRunning.
        """
        if confirmed != name:
            raise DeletionRefused(f"To delete the group {name!r}, give its name as `confirm` too.")
        async with self._database.begin(by.workspace) as tx:
            if await self._tables.ramp_is_running(tx, name):
                raise RampRunning()
            deletion_id, now = new_id(), self._clock()
            entry = await self._groups.configure_in(tx, by, name, {"deletion": str(deletion_id)}, retires=True)
            settings = GroupSettings(await self._store.settings(tx, name, entry.group.revision))
            policy = settings.of(Rows).at_deletion
            await self._tables.ask_deletion(tx, deletion_id, name, policy, by.reason, by.actor.id, now)
            await self._tables.retire(tx, name, now)
            return await self._find(tx, name)

    async def one(self, workspace: str, name: str) -> Deletion:
        """The group's deletion, also when it is done. Raises NoDeletion."""
        async with self._database.begin(workspace) as tx:
            return await self._find(tx, name)

    async def agree(self, by: By, name: str) -> Deletion:
        """The second person's word. Raises NoDeletion, DeletionRefused, SecondPersonNeeded."""
        async with self._database.begin(by.workspace) as tx:
            deletion = await self._open(tx, name)
            if deletion.policy == "archive":
                raise DeletionRefused("These rows are archived before they go; nobody has to agree.")
            if by.actor.id == deletion.asked_by:
                raise SecondPersonNeeded()
            if deletion.agreed_by is None:
                await self._tables.agree_deletion(tx, deletion.id, by.actor.id, self._clock())
            return await self._find(tx, name)

    async def keep(self, by: By, name: str) -> Deletion:
        """Take it back, as long as nothing is gone; the group serves again. Raises NoDeletion, DeletionRefused."""
        async with self._database.begin(by.workspace) as tx:
            deletion = await self._open(tx, name)
            await self._tables.keep_group(tx, deletion.id, by.actor.id, self._clock())
            await self._tables.retire(tx, name, None)
            await self._groups.configure_in(tx, by, name, {"kept": str(deletion.id)})  # tells everybody that it serves
            return await self._find(tx, name)

    async def carry_out(self) -> list[str]:
        """Do what is due; returns the groups that are gone. Several may run: a deletion is one's at a time."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            due = await self._tables.deletions_due(tx, self._clock() - self._settle)
        return [one["group_name"] for one in due if await self._carry_out(one)]

    async def _carry_out(self, due: Row) -> bool:
        group, workspace = due["group_name"], due["workspace"]
        if due["policy"] == "archive":
            async with self._database.begin(workspace) as tx:
                days = await self._tables.log_days(tx, group)
            for partition, day in days:
                await self._archives.retire_day(workspace, group, partition, day, "deletion")
        async with self._database.begin(workspace) as tx:
            if not await self._tables.is_open(tx, due["id"]):
                return False
            left = await self._tables.drop_log(tx, group)
            if left and due["policy"] == "archive":
                raise DeletionRefused(f"{left} rows came to {group!r} after it was archived; it is tried again.")
            rows = left if due["policy"] == "drop" else await self._tables.archived_rows(tx, group)
            entry = await self._groups.find(tx, group)
            await self._tables.end_group(tx, group, self._clock())
            await self._tables.end_deletion(tx, due["id"], self._clock(), rows)
            asked = By(workspace, Actor(id=due["asked_by"], proven=True), due["reason"])
            tx.emit(changed(replace(entry, at=self._clock()), asked, "deleted"))
        return True

    async def _open(self, tx: Transaction, name: str) -> Deletion:
        if await self._tables.lock_group(tx, name) is None:
            raise UnknownGroup(name)
        deletion = await self._find(tx, name)
        if deletion.state in ("done", "kept"):
            raise NoDeletion()
        return deletion

    async def _find(self, tx: Transaction, name: str) -> Deletion:
        row = await self._tables.deletion_of(tx, name)
        if row is None:
            raise NoDeletion()
        fields = [field for field in Deletion.__slots__ if field != "group"]
        return Deletion(group=row["group_name"], **{field: row[field] for field in fields})
