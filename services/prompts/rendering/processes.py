"""Processes that render: a few, each with one job at a time, replaced when a job was too much for one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from services.prompts.errors import IncludeRefused, RenderRefused, RenderTooLarge, TemplateInvalid
from shared.errors import MintmarkError, Unavailable

log = logging.getLogger(__name__)

JOB_WALL_S = 15.0
"""A job has two seconds of processor time; this is for when the machine has none to give."""

ERRORS: dict[str, type[MintmarkError]] = {
    error.code: error for error in (TemplateInvalid, IncludeRefused, RenderRefused, RenderTooLarge)
}


class Rendering:
    """Analyses and renders templates of many workspaces; one workspace has one job at a time.

    So one that sends bombs makes its own requests wait, and the other processes are there for everybody else.
    """

    name = "rendering"

    def __init__(self, count: int = 2) -> None:
        self._turns = asyncio.Semaphore(count)
        self._idle: list[Process] = []
        self._at_work: set[Process] = set()
        self._workspaces: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, int] = defaultdict(int)

    async def run(self) -> None:
        """The worker's life: nothing to do but to end the processes with the service."""
        try:
            await asyncio.Event().wait()
        finally:
            for process in (*self._idle, *self._at_work):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            self._idle.clear()

    async def analyse(self, workspace: str, syntax: str, texts: list[str], schemas: dict[str, Any]) -> list[str]:
        """The variables that texts use. Raises TemplateInvalid or RenderTooLarge."""
        answer = await self._do(workspace, {"do": "analyse", "syntax": syntax, "texts": texts, "schemas": schemas})
        return list(answer["used"])

    async def render(self, workspace: str, document: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """`{"text"}` or `{"messages"}`. Raises RenderRefused or RenderTooLarge."""
        answer = await self._do(workspace, {"do": "render", "document": document, "variables": variables})
        return dict(answer["rendered"])

    async def _do(self, workspace: str, job: dict[str, Any]) -> dict[str, Any]:
        try:
            sent = json.dumps(job).encode()
        except RecursionError:
            raise RenderRefused("the values are nested too deep") from None
        async with self._own_turn(workspace), self._turns:
            answer = await self._asked(sent)
        if "code" in answer:
            raise ERRORS[answer["code"]](answer["message"])
        return answer

    @contextlib.asynccontextmanager
    async def _own_turn(self, workspace: str) -> AsyncIterator[None]:
        lock = self._workspaces.setdefault(workspace, asyncio.Lock())
        self._waiting[workspace] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[workspace] -= 1
            if not self._waiting[workspace]:
                del self._waiting[workspace], self._workspaces[workspace]

    async def _asked(self, sent: bytes) -> dict[str, Any]:
        process = self._idle.pop() if self._idle else await _started()
        self._at_work.add(process)
        try:
            async with asyncio.timeout(JOB_WALL_S):
                answer = await _exchange(process, sent)
        except (asyncio.IncompleteReadError, ConnectionError):
            log.warning("a rendering process ended at its job", extra={"status": await process.wait()})
            return {"code": RenderTooLarge.code, "message": "the template takes more time or memory than it is given"}
        except TimeoutError:
            raise Unavailable("no template is rendered just now, the machine is too busy; try again") from None
        else:
            self._idle.append(process)
            return answer
        finally:
            self._at_work.discard(process)
            if process not in self._idle and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()


async def _exchange(process: Process, job: bytes) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(len(job).to_bytes(4, "big") + job)
    await process.stdin.drain()
    size = int.from_bytes(await process.stdout.readexactly(4), "big")
    answer: dict[str, Any] = json.loads(await process.stdout.readexactly(size))
    return answer


async def _started() -> Process:
    # It gets no setting of the service: templates are strangers' programs, and it needs none.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINTMARK_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.prompts.rendering.child", stdin=PIPE, stdout=PIPE, env=environment
    )
