"""The gateway's side of its spool: all rows of one turn of the event loop in one write(), then their answers.

`write()` puts them into the kernel's memory, where they outlive this process. When they reach the disk, and so outlive
the machine too, is the policy: before the answers (`always`), in a thread every `fsync_interval_s` (`interval`), or
whenever the kernel likes (`never`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from services.router.errors import RowsUnavailable
from services.router.gateway.metrics import Metrics
from services.router.gateway.spool.format import SEGMENT_SUFFIX, frame
from shared import faults
from shared.ids import new_id

log = logging.getLogger(__name__)

Recorded = Callable[[RowsUnavailable | None], None]
MEASURE_S = 0.5  # how often the folder is measured: the shipper makes room without a word
COMPLAIN_S = 1.0


class Fsync(StrEnum):
    ALWAYS = "always"
    INTERVAL = "interval"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Bytes and seconds."""

    fsync: Fsync = Fsync.INTERVAL
    fsync_interval_s: float = 0.05
    segment_bytes: int = 32 << 20
    spool_bytes: int = 4 << 30


class SpoolWriter:
    """One spool, made by `start`, ended by `stop`; `submit` is for the event loop's thread alone."""

    def __init__(self, folder: Path, metrics: Metrics, limits: SpoolLimits) -> None:
        self.folder = folder / str(new_id())
        self._metrics = metrics
        self._limits = limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: int | None = None
        self._file: int | None = None
        self._segment = 0
        self._segment_bytes = 0
        self._older_bytes = 0
        self._broken = False
        self._frames: list[bytes] = []
        self._waiting: list[tuple[Recorded, bool]] = []
        self._syncing: asyncio.Task[None] | None = None
        self._dirty = False
        self._tasks: list[asyncio.Task[None]] = []
        self._complained = 0.0

    @property
    def waiting_bytes(self) -> int:
        """On the disk, as far as the shipper has not taken it."""
        return self._older_bytes + self._segment_bytes

    @property
    def is_accepting(self) -> bool:
        """A row submitted now has a good chance to be kept."""
        return self._file is not None and not self._broken and self.waiting_bytes < self._limits.spool_bytes

    async def start(self) -> None:
        """Make the spool and take its lock. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        making = self.folder.with_name(f".{self.folder.name}")  # no shipper looks at it before its lock is taken
        making.mkdir(parents=True)
        self._lock = os.open(making / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        making.rename(self.folder)
        self._next_segment()
        self._tasks = [asyncio.create_task(self._measure())]
        if self._limits.fsync is Fsync.INTERVAL:
            self._tasks.append(asyncio.create_task(self._sync_by_interval()))

    async def stop(self) -> None:
        """Write and sync what is pending, and give the spool up to whoever ships it."""
        while self._frames or self._syncing:
            if not self._syncing:
                self._flush()
            await asyncio.sleep(0.001)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._file is not None:
            file, self._file = self._file, None
            if self._limits.fsync is not Fsync.NEVER:
                await asyncio.to_thread(os.fdatasync, file)
            os.close(file)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def submit(self, payload: bytes, drop_when_full: bool, recorded: Recorded) -> None:
        """Take a row; `recorded` hears None once it is kept (or dropped, as its group chose), else why it is not.

        May call back at once. Never raises.
        """
        if not self.is_accepting:
            self._turn_away(recorded, drop_when_full)
            return
        if not self._frames and not self._syncing:
            assert self._loop is not None
            self._loop.call_soon(self._flush)
        self._frames.append(frame(payload))
        self._waiting.append((recorded, drop_when_full))

    def _flush(self) -> None:
        """Group commit: whatever was submitted since the last one, in one write."""
        if not self._frames or self._file is None:
            return
        if self._segment_bytes >= self._limits.segment_bytes:
            self._next_segment()
        data = b"".join(self._frames)
        waiting = self._waiting
        self._frames, self._waiting = [], []
        try:
            self._write(data)
        except OSError as error:
            log.error("the spool cannot be written", extra={"folder": str(self.folder), "error": str(error)})
            self._broken = True  # until the next measure, which tries again
            for recorded, drop in waiting:
                self._turn_away(recorded, drop)
            return
        faults.point("spool.written")
        self._metrics.flushed(len(waiting), len(data))
        if self._limits.fsync is Fsync.ALWAYS:
            assert self._loop is not None
            self._syncing = self._loop.create_task(self._sync_then(waiting))
        else:
            self._dirty = True
            for recorded, _ in waiting:
                _call(recorded, None)

    def _write(self, data: bytes) -> None:
        """All of it or nothing: what a full disk let through is taken back."""
        assert self._file is not None
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:] if written else data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._segment_bytes)
                os.lseek(self._file, self._segment_bytes, os.SEEK_SET)
            raise
        self._segment_bytes += written

    def _turn_away(self, recorded: Recorded, drop: bool) -> None:
        """There is no room: the caller is refused, or answered without a row, as the group chose."""
        self._metrics.turned_away(drop)
        now = time.monotonic()
        if now - self._complained > COMPLAIN_S:
            self._complained = now
            log.error(
                "the spool is full; rows are being dropped" if drop else "the spool is full; requests are refused",
                extra={"folder": str(self.folder), "bytes": self.waiting_bytes, "limit": self._limits.spool_bytes},
            )
        _call(recorded, None if drop else RowsUnavailable())

    # -- segments and the disk

    def _next_segment(self) -> None:
        """Begin the next file; raises OSError only for the first."""
        previous = self._file
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            self._file = os.open(self.folder / f"{self._segment + 1:08}{SEGMENT_SUFFIX}", flags, 0o600)
        except OSError:
            if previous is None:
                raise
            return  # this one goes on; the next flush tries again
        self._segment += 1
        self._older_bytes += self._segment_bytes
        self._segment_bytes = 0
        if previous is not None:
            assert self._loop is not None
            self._loop.run_in_executor(None, _close, previous, self._limits.fsync is not Fsync.NEVER)

    async def _sync_then(self, waiting: list[tuple[Recorded, bool]]) -> None:
        assert self._file is not None
        error: RowsUnavailable | None = None
        try:
            await asyncio.to_thread(os.fdatasync, self._file)
        except OSError as failure:
            log.error("the spool cannot be synced", extra={"folder": str(self.folder), "error": str(failure)})
            error = RowsUnavailable()
        self._syncing = None
        for recorded, _ in waiting:
            _call(recorded, error)
        self._flush()

    async def _sync_by_interval(self) -> None:
        while True:
            await asyncio.sleep(self._limits.fsync_interval_s)
            if self._dirty and self._file is not None:
                self._dirty = False
                file = os.dup(self._file)  # the segment may change meanwhile
                try:
                    await asyncio.to_thread(os.fdatasync, file)
                except OSError as error:
                    log.error("the spool cannot be synced", extra={"folder": str(self.folder), "error": str(error)})
                finally:
                    os.close(file)

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_S)
            current = self.folder / f"{self._segment:08}{SEGMENT_SUFFIX}"
            self._older_bytes = sum(size_of(path) for path in self.folder.glob(f"*{SEGMENT_SUFFIX}") if path != current)
            self._broken = False
            self._metrics.spooled(self.waiting_bytes)


def size_of(path: Path) -> int:
    """0 for a file that was removed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _call(recorded: Recorded, error: RowsUnavailable | None) -> None:
    try:
        recorded(error)
    except Exception:  # one caller's defect must not keep everybody else's answers
        log.exception("a caller could not take its row's outcome")


def _close(file: int, sync: bool) -> None:
    with contextlib.suppress(OSError):
        if sync:
            os.fdatasync(file)
    os.close(file)
