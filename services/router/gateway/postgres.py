"""The gateway's own connections to the router's schema, beside any pool: they live long and see every workspace."""

from __future__ import annotations

import asyncpg

from shared.db.database import EVERY_WORKSPACE, GONE, Database

LOST = (*GONE, asyncpg.PostgresError)
"""What ends a connection's use, whichever side is to blame."""


async def connect(database: Database, *, timeout_s: float) -> asyncpg.Connection:
    """A connection on which JSON is text and every commit is on disk before it returns. Raises one of LOST.

    A gateway serves all workspaces. What holds a row to its own is the CHECK of its group's table, which is narrower
    than row-level security: one workspace, for ever.
    """
    settings = {
        **database.server_settings(),
        "mintmark.workspace": EVERY_WORKSPACE,
        "synchronous_commit": "on",
        "jit": "off",
    }
    return await asyncpg.connect(database.dsn, server_settings=settings, timeout=5, command_timeout=timeout_s)
