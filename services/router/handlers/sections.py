"""A group's settings: read whole, set a section at a time; setting one is a revision of the group like any other."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import ValidationError

from services.router.group_settings import GroupSettings, Guardrails, Rows, Section
from services.router.group_settings.guardrails import tightened
from services.router.handlers.groups import By, Groups
from services.router.handlers.keys import GroupKeyring
from services.router.handlers.naming import require_known
from services.router.store import Entry, Setting, Store
from shared.db.database import Database
from shared.events.guardrails import GUARDS

log = logging.getLogger(__name__)


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
        """Put a section in force, whole.

        Raises UnknownGroup, UnknownName, RevisionConflict, SealBroken, GuardWeakened.
        """
        async with self._database.begin(by.workspace) as tx:
            await require_known(tx, self._store, (await self._groups.find(tx, name)).group, value)
            if isinstance(value, Guardrails):
                for version, brought in await self._store.brought_guards(tx, name):
                    _require_tightened(version, brought, value)
            stored = value.model_dump(mode="json", exclude_defaults=True)
            entry = await self._groups.configure_in(tx, by, name, {"section": value.section, "value": stored})
            if isinstance(value, Rows):
                await self._keyring.prepare(tx, name, value)
            setting = Setting(name, value.section, entry.group.revision, stored, entry.who, entry.why, entry.at)
            await self._store.add_setting(tx, setting)
            return entry

    async def history(self, workspace: str, name: str, section: str) -> list[Setting]:
        """Every value that the section ever had, oldest first. Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            await self._groups.find(tx, name)
            return await self._store.setting_history(tx, name, section)


def _require_tightened(version: str, brought: list[dict[str, Any]], value: Guardrails) -> None:
    """Raises GuardWeakened. Guards that nobody can read keep their version from being served; here they say nothing."""
    try:
        guards = GUARDS.validate_python(brought)
    except ValidationError:
        log.warning("a version brings guardrails that cannot be read", extra={"version": version})
        return
    tightened(guards, value.guards)
