"""A group's settings: read whole, set a section at a time; setting one is a revision of the group like any other."""

from __future__ import annotations

from services.router.group_settings import GroupSettings, Section
from services.router.handlers.groups import By, Groups
from services.router.store import Entry, Setting, Store
from shared.db.database import Database


class Sections:
    """Reads and sets sections."""

    def __init__(self, database: Database, store: Store, groups: Groups) -> None:
        self._database = database
        self._store = store
        self._groups = groups

    async def of(self, workspace: str, name: str) -> tuple[Entry, GroupSettings]:
        """What is in force. Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            entry = await self._groups.find(tx, name)
            return entry, GroupSettings(await self._store.settings(tx, name, entry.group.revision))

    async def put(self, by: By, name: str, value: Section) -> Entry:
        """Put a section in force, whole. Raises UnknownGroup, RevisionConflict."""
        async with self._database.begin(by.workspace) as tx:
            stored = value.model_dump(mode="json", exclude_defaults=True)
            entry = await self._groups.configure_in(tx, by, name, {"section": value.section, "value": stored})
            await self._store.add_setting(tx, Setting(name, value.section, entry.group.revision, stored), entry)
            return entry

    async def history(self, workspace: str, name: str, section: str) -> list[Setting]:
        """Every value that the section ever had, oldest first. Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            await self._groups.find(tx, name)
            return await self._store.setting_history(tx, name, section)
