"""Starts the scanners on bytes of the store, and waits no longer than they may take."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import orjson

from services.registry.errors import ScanFailed
from services.registry.scanning.statement import Scan, Statement
from shared.clock import Clock

TIMEOUT_S = 90.0
MOST_UNPACKED = 1024**3
MODULE = "services.registry.scanning.scanner"


async def scan(chunks: AsyncIterator[bytes], digest: str, form: str, clock: Clock) -> Scan:
    """What the scanners say. Raises ScanFailed where they cannot: what nobody could look at is not taken."""
    with tempfile.TemporaryDirectory(prefix="mintmark-scan-") as folder:
        path = Path(folder) / "artefact"
        with path.open("wb") as file:
            async with aclosing(chunks):  # type: ignore[type-var]
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
        said = await _run(path, form)
    try:
        statements = tuple(Statement.model_validate(one) for one in orjson.loads(said))
    except ValueError:
        raise ScanFailed(f"{digest}: the scanners gave no answer") from None
    return Scan(digest, form, statements, clock())


async def _run(path: Path, form: str) -> bytes:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        MODULE,
        str(path),
        form,
        str(MOST_UNPACKED),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise ScanFailed(f"scanning took longer than {TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise ScanFailed("the scanners ended without an answer: too much memory, too much time, or a broken file")
    return output
