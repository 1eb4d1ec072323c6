"""Prompts in memory, as of the last notice that Postgres gave: loaded when first asked for, dropped when they change.

Every change of a prompt sends a notice when it commits (triggers of 0003 and 0004), so what is here is as old as a
notice travels: milliseconds. A connection that is silently dead is noticed within LIVE_S; until then it may be that
old. Without a live connection nothing here is believed, and every fetch asks the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import asyncpg

from services.prompts.domain import splits
from services.prompts.domain.content import LATEST
from services.prompts.domain.splits import Ranges
from services.prompts.handlers.reading import Found
from services.prompts.store import Prompt, Store, reading
from shared.db.database import Database, Transaction
from shared.errors import Unavailable
from shared.events.names import name_of

log = logging.getLogger(__name__)

CHANNEL = "prompts_changed"
BEAT_S = 1.0
LIVE_S = 3.0
AGAIN_S = 0.5
MOST_BYTES = 256 * 1024 * 1024
MOST_NOTICES = 100_000

Key = tuple[str, str]
"""Workspace, and the name or title that was asked for (in notices: the name)."""


@dataclass(slots=True)
class Body:
    """An answer, encoded, and its ETag."""

    data: bytes
    etag: bytes
    version: int


@dataclass(slots=True)
class Entry:
    """What is known of one prompt; `bodies` are filled as they are asked for, by (shape, version)."""

    prompt: Prompt
    labels: dict[str, int]
    newest: int | None
    splits: dict[str, dict[str, Ranges]]
    bodies: dict[tuple[str, int], Body] = field(default_factory=dict)
    size: int = 1000

    def number(self, version: int | None, label: str, unit: str | None) -> tuple[int | None, str]:
        """The version that is meant and the label that led to it; a unit falls to its arm where the label is split."""
        if version is not None:
            return version, ""
        if label == LATEST:
            return self.newest, label
        if unit is not None and (arms := self.splits.get(label)):
            arm = splits.arm_of(arms, splits.bucket_of(self.prompt.name, label, unit))
            if arm is not None and arm in self.labels:
                return self.labels[arm], arm
        return self.labels.get(label), label

    def labels_of(self, version: int) -> list[str]:
        return sorted(label for label, number in self.labels.items() if number == version)


class Memory:
    """A worker that listens, and what it keeps for the fetch path."""

    name = "fetching"

    def __init__(self, database: Database, store: Store, most_bytes: int = MOST_BYTES) -> None:
        self._database = database
        self._store = store
        self._most_bytes = most_bytes
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._asked_as: dict[Key, set[str]] = {}
        self._bytes = 0
        self._heard_at = float("-inf")
        self._notices = 0
        self._noticed: dict[Key, int] = {}
        self._floor = 0
        self._waiting: dict[Key, set[asyncio.Future[None]]] = {}
        self._loading: dict[Key, asyncio.Lock] = {}
        self._connection: asyncpg.Connection | None = None
        self._asking = asyncio.Lock()

    @property
    def is_live(self) -> bool:
        return time.monotonic() - self._heard_at < LIVE_S

    # Fetching

    def known(self, workspace: str, given: str) -> Entry | None:
        """What is kept of a prompt, if it may be believed."""
        if not self.is_live:
            return None
        entry = self._entries.get((workspace, given))
        if entry is not None:
            self._entries.move_to_end((workspace, given))
        return entry

    async def load(self, workspace: str, given: str) -> Entry | None:
        """The prompt from the database, kept unless a notice came meanwhile. One load at a time for each prompt."""
        key = (workspace, given)
        lock = self._loading.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                entry = self.known(workspace, given)
                if entry is not None:
                    return entry
                before = self._notices
                async with reading(self._database, workspace) as tx:
                    entry = await self._read(tx, given)
                if entry is not None:
                    self._keep(key, entry, before)
                return entry
        finally:
            if not lock.locked():
                self._loading.pop(key, None)

    async def found(self, workspace: str, entry: Entry, version: int) -> Found | None:
        """One version of a prompt that is kept."""
        async with reading(self._database, workspace) as tx:
            one = await self._store.versions.one(tx, entry.prompt.name, version)
        if one is None:
            return None
        return Found(entry.prompt, one, entry.labels_of(version), entry.newest)

    def encoded(self, workspace: str, given: str, entry: Entry, shape: str, body: Body) -> None:
        """Keep an answer with the prompt that it is of, as long as that is kept itself."""
        entry.bodies[shape, body.version] = body
        entry.size += len(body.data) + 200
        if self._entries.get((workspace, given)) is entry:
            self._bytes += len(body.data) + 200
            while self._bytes > self._most_bytes and len(self._entries) > 1:
                self._drop(next(iter(self._entries)))

    async def changed(self, workspace: str, name: str, within_s: float) -> None:
        """Return when the prompt has changed, or after a time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault((workspace, name), set())
        waiting.add(future)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await future
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get((workspace, name)) is waiting:
                del self._waiting[workspace, name]

    async def _read(self, tx: Transaction, given: str) -> Entry | None:
        prompt = await self._store.versions.find(tx, given)
        if prompt is None:
            return None
        moves = await self._store.labels.of(tx, prompt.name)
        newest = await self._store.versions.newest(tx, prompt.name)
        labels = {move.label: move.after for move in moves if move.after is not None}
        arms = {split.label: split.arms for split in await self._store.splits.of(tx, prompt.name)}
        return Entry(prompt, labels, newest.version if newest else None, arms)

    def _keep(self, key: Key, entry: Entry, before: int) -> None:
        workspace, given = key
        names = {entry.prompt.name, name_of(given)}  # a prompt may come that has as its title what is a name now
        if not self.is_live or any(self._noticed.get((workspace, name), self._floor) > before for name in names):
            return
        self._entries[key] = entry
        self._bytes += entry.size
        for name in names:
            self._asked_as.setdefault((workspace, name), set()).add(given)

    # Hearing

    async def caught_up(self) -> None:
        """Every notice of what was committed before this call has been heard when it returns.

        Postgres hands a connection the notices that wait for it before it answers the next question on it.
        """
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with self._asking, asyncio.timeout(1):
                    await connection.execute("SELECT 1")

    async def run(self) -> None:
        while True:
            try:
                await self._listen()
            except (Unavailable, OSError, TimeoutError) as error:
                log.warning("prompts are fetched from the database", extra={"error": str(error)})
            self._forget()
            await asyncio.sleep(AGAIN_S)

    async def _listen(self) -> None:
        """Until the connection is lost; a beat shows that it is not."""
        connection = await self._database.connect()
        try:
            await connection.add_listener(CHANNEL, lambda _connection, _pid, _channel, payload: self._notice(payload))
            self._forget()
            while not connection.is_closed():
                async with self._asking, asyncio.timeout(LIVE_S):
                    await connection.execute("SELECT 1")
                self._heard_at, self._connection = time.monotonic(), connection
                await asyncio.sleep(BEAT_S)
        finally:
            self._heard_at, self._connection = float("-inf"), None
            connection.terminate()

    def _notice(self, payload: object) -> None:
        workspace, _, name = str(payload).partition("/")
        self._notices += 1
        if len(self._noticed) >= MOST_NOTICES:
            self._noticed.clear()
            self._floor = self._notices
        self._noticed[workspace, name] = self._notices
        for given in self._asked_as.pop((workspace, name), ()):
            self._drop((workspace, given))
        self._wake((workspace, name))

    def _forget(self) -> None:
        """Nothing that was kept is believed any more; whoever waits looks again."""
        self._notices += 1
        self._floor = self._notices
        self._noticed.clear()
        self._entries.clear()
        self._asked_as.clear()
        self._bytes = 0
        for key in list(self._waiting):
            self._wake(key)

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
            for name in {entry.prompt.name, name_of(key[1])}:
                asked = self._asked_as.get((key[0], name))
                if asked is not None:
                    asked.discard(key[1])
                    if not asked:
                        del self._asked_as[key[0], name]

    def _wake(self, key: Key) -> None:
        for future in self._waiting.get(key, ()):
            if not future.done():
                future.set_result(None)
