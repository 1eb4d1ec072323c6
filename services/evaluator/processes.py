"""Processes that score: heavy libraries and strangers' models live there, never in the service."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from typing import Any, Literal

PARENT_WATCH_S = 1.0

Job = Literal["count_rows", "score", "report"]


class ScoringProcesses:
    """Runs the functions of `scoring` by name. `concurrent.futures.process.BrokenProcessPool` means that one died."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, job: Job, *arguments: Any) -> Any:
        """The job's result, or the EvaluationError that it raised."""
        if self._pool is None:
            # Spawned, not forked: a fork would copy this process's sockets and the locks of its threads.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_end_with_parent)
        return await asyncio.wrap_future(self._pool.submit(_do, job, *arguments))

    def drop(self) -> None:
        """End all of them; the next job starts new ones."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _do(job: Job, *arguments: Any) -> Any:
    return getattr(import_module("services.evaluator.scoring"), job)(*arguments)


def _end_with_parent() -> None:
    """When the service is killed, its scoring processes end as well; and they begin to import before the first job."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import_module("services.evaluator.scoring")
