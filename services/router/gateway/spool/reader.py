"""The shipper's side of a spool: whole records from a position on, and what to do about a tail that is not whole.

While the writer lives, a record that is not whole is one that is being written. Once it is dead, or has gone on to
another segment, it never will be: a torn tail is cut; a record that does not hold its checksum is set aside, with the
rest of its segment where no record can be found behind it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from services.router.gateway.spool.format import SEGMENT_SUFFIX, Position, records

log = logging.getLogger(__name__)

READ_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Stretch:
    """Records of one segment, and the position after them."""

    data: bytes
    payloads: list[tuple[int, int]]
    until: Position


class SpoolReader:
    """One spool; opened by one shipper at a time on this machine (its lock on the folder's `shipper` file)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer_is_dead = False
        self._shipper_lock: int | None = None
        self._writer_lock: int | None = None
        self._file: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    def open(self) -> bool:
        """Take the spool for this shipper; False when another one has it."""
        lock = os.open(self.folder / "shipper", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if not _locked(lock):
            os.close(lock)
            return False
        self._shipper_lock = lock
        return True

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file[1])
            self._file = None
        for lock in (self._writer_lock, self._shipper_lock):
            if lock is not None:
                os.close(lock)
        self._writer_lock = self._shipper_lock = None

    def first(self) -> Position:
        """Where a spool begins of which Postgres knows nothing."""
        return Position(min(self._segments(), default=1), 0)

    def look_for_writer(self) -> None:
        """Find out whether the writer still lives; once dead it stays so."""
        if self.writer_is_dead:
            return
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        if _locked(lock):
            self._writer_lock = lock
            self.writer_is_dead = True
        else:
            os.close(lock)

    def read(self, position: Position, most: int = READ_BYTES) -> Stretch | None:
        """Whole records from `position` on, about `most` bytes of them; None when there are none (yet).

        A stretch may be empty and yet move the position: past a finished segment, or past what was cut.
        """
        finished = self.writer_is_dead or position.segment + 1 in self._segments()
        file = self._opened(position.segment)
        if file is None:
            return Stretch(b"", [], Position(position.segment + 1)) if self._is_behind(position) else None
        data = os.pread(file, most, position.offset)
        found = records(data)
        if not found.payloads and found.wanted > len(data) == most:  # a record that is larger than a read
            data = os.pread(file, found.wanted, position.offset)
            found = records(data)
        if found.payloads:
            return Stretch(data, found.payloads, Position(position.segment, position.offset + found.end))
        if not finished:
            return None
        size = os.fstat(file).st_size
        if position.offset >= size:
            nothing_more = self.writer_is_dead and position.segment >= max(self._segments(), default=0)
            return None if nothing_more else Stretch(data, [], Position(position.segment + 1))
        end = position.offset + found.end
        skip = found.wanted if found.bad and _holds(file, end + found.wanted, size) else size - end
        self._set_aside(file, position.segment, end, skip, torn=not found.bad)
        return Stretch(data, [], Position(position.segment, end + skip))

    def is_done(self, position: Position) -> bool:
        """The writer is dead and everything was taken."""
        if not self.writer_is_dead:
            return False
        segments = self._segments()
        last = max(segments, default=0)
        if position.segment < last:
            return False
        file = self._opened(position.segment)
        return file is None or position.offset >= os.fstat(file).st_size

    def forget(self, position: Position) -> None:
        """Remove the segments before the position: they are in Postgres."""
        for number in self._segments():
            if number < position.segment:
                self._path(number).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder of a spool that is done; at once, so that no half of it is found again."""
        gone = self.folder.with_name(f".{self.folder.name}.shipped")
        self.folder.rename(gone)
        self.close()
        shutil.rmtree(gone, ignore_errors=True)

    # -- files

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:08}{SEGMENT_SUFFIX}"

    def _segments(self) -> list[int]:
        names = (path.name for path in self.folder.iterdir())
        return [int(name.removesuffix(SEGMENT_SUFFIX)) for name in names if name.endswith(SEGMENT_SUFFIX)]

    def _is_behind(self, position: Position) -> bool:
        return any(number > position.segment for number in self._segments())

    def _opened(self, segment: int) -> int | None:
        if self._file is not None and self._file[0] == segment:
            return self._file[1]
        try:
            file = os.open(self._path(segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if self._file is not None:
            os.close(self._file[1])
        self._file = (segment, file)
        return file

    def _set_aside(self, file: int, segment: int, start: int, size: int, *, torn: bool) -> None:
        """Keep what is passed over where somebody can look at it; a tail torn by a crash was never answered."""
        if torn:
            log.warning("a spool's torn tail is cut", extra={"spool": self.name, "segment": segment, "bytes": size})
            return
        aside = self.folder.parent.parent / "damaged"
        aside.mkdir(exist_ok=True)
        path = aside / f"{self.name}-{segment:08}-{start}"
        path.write_bytes(os.pread(file, size, start))
        log.error(
            "a spool is damaged; what cannot be read was set aside",
            extra={"spool": self.name, "segment": segment, "offset": start, "bytes": size, "file": str(path)},
        )


def spools(folder: Path) -> list[Path]:
    """Every spool under the folder, the oldest first; leftovers of removals are swept."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            if path.name.endswith(".shipped"):
                shutil.rmtree(path, ignore_errors=True)
        elif (path / "lock").exists():
            found.append(path)
    return found


def _holds(file: int, start: int, size: int) -> bool:
    """A whole record begins at `start`, or the segment ends there."""
    if start == size:
        return True
    found = records(os.pread(file, READ_BYTES, start))
    return bool(found.payloads)


def _locked(lock: int) -> bool:
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
