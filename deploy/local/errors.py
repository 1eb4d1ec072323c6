"""What can go wrong on a person's own machine; the message is all that person sees, so it names the fix."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LocalError(Exception):
    """One sentence that says what is wrong and how to fix it; shown without a traceback, exit code 1."""


class AlreadyBusyError(LocalError):
    """Another command holds this data folder."""


class PortTakenError(LocalError):
    """Somebody else listens where we should."""


class ProcessDiedError(LocalError):
    """A process that was started ended before it was ready."""


def disk_full(folder: Path) -> LocalError:
    """What to say when the disk has filled up."""
    return LocalError(f"The disk of {folder} is full: free some space, or choose another folder with --data.")


@contextmanager
def explaining_os_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk or an unwritable folder into a sentence, wherever inside the block it was met."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise LocalError(
                f"{where} cannot be written by {_user()}: fix its permissions, or choose another folder with --data."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise LocalError(
                f"{where} is in the way, it is not a folder: move it, or choose another with --data."
            ) from error
        raise


def _user() -> str:
    return f"user id {os.geteuid()}" if hasattr(os, "geteuid") else "this user"
