"""The one data folder: where everything lies in it, who may read it, which version made it, who is at work in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import AlreadyBusyError, LocalError, explaining_os_errors

FORMAT_VERSION = 1
"""Raised when an older Mintmark could no longer read the folder."""

MIN_FREE_MIB = 500
"""Jars 44 MB, AOT cache 70 MB, a new PostgreSQL cluster 40 MB and its first WAL segments, and room to work."""

CHECKOUT = Path(__file__).resolve().parents[2]


def in_checkout() -> bool:
    """True when this code runs from a source checkout rather than from an installed wheel."""
    return (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / "Makefile").is_file()


def default_data() -> Path:
    """MINTMARK_DATA, else `.mintmark` of the checkout, else the user's own data folder."""
    if given := os.environ.get("MINTMARK_DATA"):
        return Path(given).expanduser().absolute()
    if in_checkout():
        return CHECKOUT / ".mintmark"
    return Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "mintmark"


def default_cache() -> Path:
    """MINTMARK_CACHE, else `.mintmark/cache` of the checkout, else the user's own cache folder. Safe to delete."""
    if given := os.environ.get("MINTMARK_CACHE"):
        return Path(given).expanduser().absolute()
    if in_checkout():
        return CHECKOUT / ".mintmark" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mintmark"


@dataclass(frozen=True)
class DataFolder:
    """Paths inside one data folder. `prepare` makes it usable or says why it cannot be."""

    root: Path

    @property
    def marker(self) -> Path:
        return self.root / "mintmark.json"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def secrets(self) -> Path:
        """Passwords, private keys and the owner's API key: the folder is 0700 and every file 0600."""
        return self.root / "secrets"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def artefacts(self) -> Path:
        return self.root / "artefacts"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def exists(self) -> bool:
        return self.marker.is_file()

    def check_version(self) -> None:
        """Refuse a folder that a newer Mintmark has written: reading it half would damage it."""
        try:
            version = int(json.loads(self.marker.read_text())["format"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise LocalError(
                f'{self.marker} is damaged: write {{"format": {FORMAT_VERSION}}} into it, '
                "or choose another folder with --data."
            ) from error
        if version > FORMAT_VERSION:
            raise LocalError(
                f"{self.root} was made by a newer Mintmark (folder format {version}, this one knows {FORMAT_VERSION}): "
                "update Mintmark, or choose another folder with --data."
            )

    def prepare(self) -> None:
        """Create what is missing, with the right permissions, and check version and free space."""
        with explaining_os_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            self.check_version()
            check_free_space(self.root)
            # As root, PostgreSQL runs as another user, who has to pass through (not list) this folder.
            self.root.chmod(0o711 if os.geteuid() == 0 else 0o700)
            for folder in (self.secrets, self.kafka, self.artefacts, self.logs, self.postgres):
                folder.mkdir(mode=0o700, exist_ok=True)
            if not self.marker.exists():
                write_atomically(self.marker, json.dumps({"format": FORMAT_VERSION}) + "\n", mode=0o644)

    @contextlib.contextmanager
    def locked(self, doing: str, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the folder for one command. The kernel frees the lock however the command ends.

        Raises AlreadyBusyError naming the other command when it still holds the lock after `wait_s`.
        """
        with explaining_os_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _acquire(descriptor, self.root, wait_s)
            with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, without its holder's name
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{doing} (process {os.getpid()})".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _acquire(descriptor: int, root: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another command"
                raise AlreadyBusyError(
                    f"{holder} is at work in {root}: wait until it has finished, then run this again."
                ) from None
            time.sleep(0.1)


def check_free_space(folder: Path, needed_mib: int | None = None) -> None:
    """Say up front that the disk is too full, instead of failing half-way through."""
    needed_mib = MIN_FREE_MIB if needed_mib is None else needed_mib
    found_mib = free_mib(folder)
    if found_mib < needed_mib:
        raise LocalError(
            f"The disk of {folder} has {found_mib} MiB free and {needed_mib} MiB are needed: "
            "free some space, or choose another folder with --data."
        )


def free_mib(folder: Path) -> int:
    """Free space on the folder's disk."""
    return shutil.disk_usage(folder).free // 2**20


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file so that a reader, or a crash, sees the old text or the new one and never a half."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
