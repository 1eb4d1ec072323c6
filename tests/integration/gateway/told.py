"""Groups that are told something, as the router's settings are stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import asyncpg
import orjson

from services.router.domain import Group

from .world import World


async def tell(world: World, group: Group, **sections: dict[str, Any]) -> Group:
    """Put sections of the group's settings in force, at this gateway too."""
    after = replace(group, revision=group.revision + 1)
    async with world.db.transaction():
        await world.move(after, "configured")
        for section, value in sections.items():
            await world.db.execute(
                "INSERT INTO group_setting (workspace, group_name, section, revision, value, who, why, at) "
                "VALUES ($1, $2, $3, $4, $5, 'user:otto', 'test', now())",
                group.workspace, group.name, section, after.revision, orjson.dumps(value).decode(),
            )  # fmt: skip
    await world.until_served(after)
    return after


async def emitted(db: asyncpg.Connection, topic: str, key: str) -> list[dict[str, Any]]:
    """What stands in the outbox of a topic and a key, oldest first."""
    rows = await db.fetch("SELECT data FROM outbox WHERE topic = $1 AND key = $2 ORDER BY id", topic, key)
    return [orjson.loads(row["data"]) for row in rows]
