"""The gateway's side of a guard's process: started when first asked, one question at a time, ended when it is overdue.

A process and no thread, because a regular expression that explodes holds the interpreter's lock until it is through,
and only ending it helps; and because what Presidio brings along would stand in every gateway's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import Any

import orjson

from services.router.gateway.guardrails.findings import Finding, Span
from services.router.gateway.guardrails.worker import LENGTH

log = logging.getLogger(__name__)

HEAVY = frozenset(("pii",))
"""Kinds that get a process of their own, so that no slow neighbour has it ended: it is ready after seconds only."""
START_TIMEOUT_S = 30.0


class GuardError(Exception):
    """A guard could not judge."""


class Worker:
    """One process. `ask` waits its turn, all within the asker's time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def ask(self, kind: str, asked: dict[str, Any], texts: list[str], timeout_s: float) -> Finding:
        """Raises GuardError, TimeoutError. A question that is not answered in time ends the process."""
        question = orjson.dumps({"kind": kind, "asked": asked, "texts": texts})
        async with asyncio.timeout(timeout_s), self._turn:
            said = await self._converse(question)
        if "error" in said:
            raise GuardError(said["error"])
        return Finding(said["tripped"], said["reason"], tuple(Span(*span) for span in said["spans"]), said["score"])

    async def warm(self, kind: str, asked: dict[str, Any]) -> None:
        """Have the process started and what this guard needs made, before anybody waits for it."""
        with contextlib.suppress(GuardError, TimeoutError):
            try:
                await self.ask(kind, asked, ["a"], START_TIMEOUT_S)
            except GuardError as error:
                log.error("a guard cannot be used", extra={"kind": kind, "error": str(error)})
                raise

    async def _converse(self, question: bytes) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.router.gateway.guardrails.worker",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env={name: value for name, value in os.environ.items() if not name.startswith("MINTMARK_")},
            )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        answered = False
        try:
            process.stdin.write(LENGTH.pack(len(question)) + question)
            (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            said: dict[str, Any] = orjson.loads(await process.stdout.readexactly(size))
            answered = True
            return said
        except (OSError, asyncio.IncompleteReadError) as error:
            raise GuardError(f"the guard's process ended: {error!r}"[:200]) from None
        finally:
            if not answered:  # its answer would be taken for the next question's
                self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class Workers:
    """A light process and one for Presidio, made when the first guard that needs one is there."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def of(self, kind: str) -> Worker:
        name = kind if kind in HEAVY else "light"
        if name not in self._workers:
            self._workers[name] = Worker(name)
        return self._workers[name]

    async def stop(self) -> None:
        for worker in self._workers.values():
            await worker.stop()
