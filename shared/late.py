"""Imports that wait until they are needed: what is large and rarely used, and would make every process start later."""

from __future__ import annotations

import asyncio
from importlib import import_module

_done: set[str] = set()
"""A module stands in `sys.modules` from the beginning of its import on, so that says nothing."""


async def loaded(*modules: str) -> None:
    """Import modules in a thread: on the event loop they would hold everybody up, for a tenth of a second and more.

    Said before an `import` in a coroutine, which then finds them there.
    """
    if not _done.issuperset(modules):
        await asyncio.to_thread(lambda: [import_module(name) for name in modules])
        _done.update(modules)
