"""Scoring processes: one that dies takes its own job along, nobody else's, and the next job finds a new one."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.evaluator.domain import ModelFile, plan
from services.evaluator.errors import GoldenSetUnreadable
from services.evaluator.processes import ScoringDied, ScoringProcesses
from services.evaluator.templates import Assignment, GoldenSpec

pytestmark = pytest.mark.timeout(120)
ROWS = 5000  # more than a shard holds, so that `begin` counts them and needs no model
MODEL = ModelFile(b"", "lightgbm", (), "classification")


class Deadly:
    """Whoever receives this ends, as with a model that crashes its library."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def assignment() -> Assignment:
    return Assignment("model", "golden", "tabular-classification", GoldenSpec("label"), plan(0))


def golden() -> list[tuple[bytes, str]]:
    sink = io.BytesIO()
    pq.write_table(pa.table({"label": np.zeros(ROWS)}), sink)
    return [(sink.getvalue(), "parquet")]


async def test_a_process_that_dies_takes_no_neighbour_along_and_is_replaced() -> None:
    processes = ScoringProcesses(2)
    try:
        jobs = [processes.run("begin", assignment(), MODEL, files) for files in (golden(), Deadly(), golden())]
        first, died, third = await asyncio.gather(*jobs, return_exceptions=True)
        assert (first, third) == (ROWS, ROWS)
        assert isinstance(died, ScoringDied)
        with pytest.raises(GoldenSetUnreadable):
            await processes.run("begin", assignment(), MODEL, [(b"nothing", "parquet")])
        assert await processes.run("begin", assignment(), MODEL, golden()) == ROWS
    finally:
        processes.end()


async def test_a_job_that_nobody_waits_for_any_more_gives_its_place_back() -> None:
    processes = ScoringProcesses(1)
    try:
        abandoned = asyncio.create_task(processes.run("begin", assignment(), MODEL, golden()))
        await asyncio.sleep(0.1)
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        assert await processes.run("begin", assignment(), MODEL, golden()) == ROWS
    finally:
        processes.end()


def test_a_process_does_not_outlive_a_service_that_was_killed_while_it_began(tmp_path: Path) -> None:
    service = """
import os, signal
from services.evaluator import processes
pool = processes._started()
pool.submit(int)
print(*pool._processes, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    said = tmp_path / "pid"  # a file, as a pipe would end with the process in question
    with said.open("w") as out:
        subprocess.run([sys.executable, "-c", service], stdout=out, check=False)
    with suppress(psutil.NoSuchProcess):  # it may have ended before anybody could look
        process = psutil.Process(int(said.read_text()))
        try:
            process.wait(30)
        finally:
            process.kill()
