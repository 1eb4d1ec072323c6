"""Processes that score: heavy libraries and strangers' models live there, never in the service."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any, Literal

PARENT_WATCH_S = 1.0

Job = Literal["begin", "score", "report", "begin_prompt", "render", "grade", "report_prompt"]


class ScoringDied(Exception):
    """The process ended while it did a job. A new one does the next job."""


class ScoringProcesses:
    """Runs the functions of `scoring` by name, at most `count` at once.

    Each process is a pool of its own with one job at a time: a model that dies takes no other's job along. They are
    started when first needed and live on, since importing the libraries takes longer than most jobs.
    """

    def __init__(self, count: int) -> None:
        self._turns = asyncio.Semaphore(count)
        self._idle: list[ProcessPoolExecutor] = []

    async def run(self, job: Job, *arguments: Any) -> Any:
        """The job's result, or the EvaluationError that it raised. Raises ScoringDied."""
        async with self._turns:
            process = self._idle.pop() if self._idle else _started()
            try:
                result = await asyncio.wrap_future(process.submit(_do, job, *arguments))
            except (BrokenProcessPool, asyncio.CancelledError) as ended:
                # Cancelled, it may be at its job for minutes: nobody waits for that.
                _end(process)
                if isinstance(ended, BrokenProcessPool):
                    raise ScoringDied(f"the scoring process ended during {job}") from ended
                raise
            except Exception:
                self._idle.append(process)
                raise
            self._idle.append(process)
            return result

    def end(self) -> None:
        """End those without a job; those at work end when whoever waits for them is cancelled."""
        while self._idle:
            _end(self._idle.pop())


def _started() -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would copy this process's sockets and the locks of its threads.
    spawning = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawning, initializer=_end_with, initargs=(os.getpid(),))


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _do(job: Job, *arguments: Any) -> Any:
    return getattr(import_module("services.evaluator.scoring"), job)(*arguments)


def _end_with(parent: int) -> None:
    """When the service is killed, its scoring processes end as well; and they begin to import before the first job.

    `parent` is its process id, told by itself: asked for here, it could be that of whoever inherits from the dead.
    """
    for name in [name for name in os.environ if name.startswith("MINTMARK_")]:
        del os.environ[name]  # models and templates are strangers' programs, and need no setting of the service

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import_module("services.evaluator.scoring")
