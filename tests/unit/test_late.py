"""Imports that wait: nobody's import holds the event loop, and the SDK gives what it names."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest

from shared.late import loaded

HELD = threading.Event()
SLOW = f"""
from importlib import import_module

released = import_module({__name__!r}).HELD.wait(20)
"""


async def test_a_second_caller_of_an_import_that_goes_on_does_not_hold_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)

    async def one() -> bool:
        await loaded("slow_to_import")
        return bool(import_module("slow_to_import").released)

    first = asyncio.create_task(one())
    while "slow_to_import" not in sys.modules:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(one())
    await asyncio.sleep(0.05)
    HELD.set()  # reached only by a loop that goes on
    assert await asyncio.gather(first, second) == [True, True]


def test_the_sdk_gives_what_it_names() -> None:
    code = (
        "import mintmark; mintmark.client.Client; mintmark.settings.Connection; from mintmark import *; "
        "assert signed is mintmark.events.signed; assert set(mintmark.__all__) <= set(dir(mintmark))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
