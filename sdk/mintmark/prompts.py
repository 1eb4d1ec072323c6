"""Prompts for applications: fetched once, kept, refreshed behind the caller's back, and there when nothing else is.

`Prompts` for threads, `AsyncPrompts` for asyncio. A prompt comes from the cache while it is fresh (`ttl_s`); after that
the old one is given at once and a new one is asked for in the background. When the server is away: what is kept, else
the snapshot, else the fallback.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from mintmark._prompt_cache import (
    Cache,
    CannotCompile,
    Prompt,
    Snapshot,
    SnapshotRefused,
    Wanted,
    keys_of,
    rather,
)
from mintmark.client import Problem, content, unreadable
from mintmark.settings import Connection

__all__ = ["AsyncPrompts", "CannotCompile", "Prompt", "Prompts", "Snapshot", "SnapshotRefused"]

TTL_S = 60.0
TIMEOUT_S = 5.0
Fallback = str | list[dict[str, Any]] | None


class _Common:
    """What both clients know: where to ask, what is kept, and the snapshot."""

    def __init__(
        self,
        connection: Connection | None = None,
        *,
        ttl_s: float = TTL_S,
        timeout_s: float = TIMEOUT_S,
        application: str | None = None,
        group: str | None = None,
        snapshot: Path | str | None = None,
        trust: Path | str | None = None,
    ) -> None:
        self.connection = connection or Connection.find()
        self.cache = Cache()
        self._ttl_s = ttl_s
        self._trust = Path(trust) if trust is not None else _local_trust()
        self._snapshot = Snapshot.read(Path(snapshot), self._trust) if snapshot is not None else None
        named = {"x-mintmark-application": application, "x-mintmark-group": group}
        key = {"authorization": f"Bearer {self.connection.api_key}"} if self.connection.api_key else {}
        headers = {**key, **{name: value for name, value in named.items() if value is not None}}
        self._settings: dict[str, Any] = {
            "base_url": self.connection.url, "headers": headers, "timeout": timeout_s,
        }  # fmt: skip

    def _asked_again(self, wanted: Wanted) -> dict[str, Any]:
        etag = self.cache.etag(wanted)
        return {"params": wanted.query, "headers": {"if-none-match": etag} if etag else {}}

    def _write(self, file: Path, envelope: Any) -> Snapshot:
        """Keep a snapshot that was verified, whole or not at all, and use it from now on."""
        snapshot = Snapshot.verified(envelope, keys_of(self._trust))
        unfinished = file.with_suffix(f"{file.suffix}.{os.getpid()}")
        unfinished.write_text(json.dumps(envelope))
        unfinished.replace(file)
        self._snapshot = snapshot
        return snapshot


class Prompts(_Common):
    """For threads; use it as a context manager, or call `close`."""

    def __init__(self, connection: Connection | None = None, **settings: Any) -> None:
        super().__init__(connection, **settings)
        self._http = httpx.Client(**self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(
        self,
        title: str,
        *,
        label: str = "production",
        version: int | None = None,
        unit: str | None = None,
        fallback: Fallback = None,
        ttl_s: float | None = None,
    ) -> Prompt:
        """A prompt by its title. Raises Problem, or httpx.TransportError, when there is nothing to give instead."""
        wanted = Wanted(title, label, version, unit)
        kept, refresh = self.cache.look(wanted, self._ttl_s if ttl_s is None else ttl_s)
        if kept is not None:
            if refresh:
                threading.Thread(target=self._refresh, args=(wanted,), daemon=True).start()
            return kept.prompt
        try:
            return self._fetch(wanted)
        except (Problem, httpx.TransportError) as error:
            return rather(error, wanted, self._snapshot, fallback)

    def render(self, title: str, *, label: str = "production", version: int | None = None, **variables: Any) -> Any:
        """The text or messages as the server renders them, every variable checked. Raises Problem."""
        body = {"variables": variables, "version": version, "label": label}
        return _rendered(self._http.post(f"{Wanted(title).path}/render", json=body))

    def save_snapshot(self, file: Path | str, *labels: str) -> Snapshot:
        """Write what the labels (all without one) point at now to a file, for when everything is down.

        Raises Problem, and SnapshotRefused for what nobody trusted signed; the file stays as it was then.
        """
        answer = self._http.get("/prompts/v1/snapshot", params={"label": list(labels)} if labels else None)
        return self._write(Path(file), content(answer))

    def _fetch(self, wanted: Wanted) -> Prompt:
        return self.cache.answered(wanted, self._http.get(wanted.path, **self._asked_again(wanted)))

    def _refresh(self, wanted: Wanted) -> None:
        try:
            self._fetch(wanted)
        except (Problem, httpx.TransportError, RuntimeError):  # RuntimeError: closed in the meantime
            pass
        finally:
            self.cache.gave_up(wanted)


class AsyncPrompts(_Common):
    """For asyncio; use it as an async context manager, or call `close`."""

    def __init__(self, connection: Connection | None = None, **settings: Any) -> None:
        super().__init__(connection, **settings)
        self._http = httpx.AsyncClient(**self._settings)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    async def get(
        self,
        title: str,
        *,
        label: str = "production",
        version: int | None = None,
        unit: str | None = None,
        fallback: Fallback = None,
        ttl_s: float | None = None,
    ) -> Prompt:
        """A prompt by its title. Raises Problem, or httpx.TransportError, when there is nothing to give instead."""
        wanted = Wanted(title, label, version, unit)
        kept, refresh = self.cache.look(wanted, self._ttl_s if ttl_s is None else ttl_s)
        if kept is not None:
            if refresh:
                task = asyncio.create_task(self._refresh(wanted))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return kept.prompt
        try:
            return await self._fetch(wanted)
        except (Problem, httpx.TransportError) as error:
            return rather(error, wanted, self._snapshot, fallback)

    async def render(
        self, title: str, *, label: str = "production", version: int | None = None, **variables: Any
    ) -> Any:
        """The text or messages as the server renders them, every variable checked. Raises Problem."""
        body = {"variables": variables, "version": version, "label": label}
        return _rendered(await self._http.post(f"{Wanted(title).path}/render", json=body))

    async def save_snapshot(self, file: Path | str, *labels: str) -> Snapshot:
        """Write what the labels (all without one) point at now to a file, for when everything is down.

        Raises Problem, and SnapshotRefused for what nobody trusted signed; the file stays as it was then.
        """
        answer = await self._http.get("/prompts/v1/snapshot", params={"label": list(labels)} if labels else None)
        return self._write(Path(file), content(answer))

    async def _fetch(self, wanted: Wanted) -> Prompt:
        return self.cache.answered(wanted, await self._http.get(wanted.path, **self._asked_again(wanted)))

    async def _refresh(self, wanted: Wanted) -> None:
        try:
            await self._fetch(wanted)
        except (Problem, httpx.TransportError):
            pass
        finally:
            self.cache.gave_up(wanted)


def _rendered(answer: httpx.Response) -> Any:
    try:
        found = content(answer)
        return found["messages"] if found["text"] is None else found["text"]
    except (LookupError, TypeError):
        raise unreadable(answer) from None


def _local_trust() -> Path:
    """The trust file of the environment, else of the local installation."""
    named = os.environ.get("MINTMARK_TRUST_FILE")
    return Path(named) if named else Path(os.environ.get("MINTMARK_DATA", ".mintmark")) / "secrets" / "trust.json"
