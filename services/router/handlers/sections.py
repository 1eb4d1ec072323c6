"""A group's settings: read whole, set a section at a time; setting one is a revision of the group like any other."""

from __future__ import annotations

from services.router.group_settings import GroupSettings, Rows, Section
from services.router.handlers.groups import By, Groups
from services.router.handlers.keys import GroupKeyring
from services.router.store import Entry, Setting, Store
from shared.db.database import Database


class Sections:
    """Reads and sets sections. `keyring` makes the keys that field rules need, in the same transaction."""

    def __init__(self, database: Database, store: Store, groups: Groups, keyring: GroupKeyring) -> None:
        self._database = database
        self._keyring = keyring
        self._store = store
        self._groups = groups

    async def of(self, workspace: str, name: str) -> tuple[Entry, GroupSettings]:
        """What is in force. Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            entry = await self._groups.find(tx, name)
            return entry, GroupSettings(await self._store.settings(tx, name, entry.group.revision))

    async def put(self, by: By, name: str, value: Section) -> Entry:
        """Put a section in force, whole. Raises UnknownGroup, RevisionConflict, SealBroken."""
        async with self._database.begin(by.workspace) as tx:
            stored = value.model_dump(mode="json", exclude_defaults=True)
            entry = await self._groups.configure_in(tx, by, name, {"section": value.section, "value": stored})
            if isinstance(value, Rows):
                await self._keyring.prepare(tx, name, value)
            await self._store.add_setting(tx, Setting(name, value.section, entry.group.revision, stored), entry)
            return entry

    async def history(self, workspace: str, name: str, section: str) -> list[Setting]:
        """Every value that the section ever had, oldest first. Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            await self._groups.find(tx, name)
            return await self._store.setting_history(tx, name, section)
