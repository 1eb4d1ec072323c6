"""Processes that outlive the command that started them: detached, remembered by pid and start time, ended safely."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import psutil

from deploy.local.errors import LocalError, ProcessDiedError, explaining_os_errors
from deploy.local.folder import write_atomically

MAX_LOG_BYTES = 20 * 2**20
MARK = "MINTMARK_PROCESS"
"""In the environment of every process that is started here, so that it can be found without a record."""

START_TIME_TOLERANCE_S = 2.0
"""The system derives a start time from its boot time, which moves a little when the clock is set."""


@dataclass(frozen=True)
class ProcessRecord:
    """Who a process is. The start time (seconds since 1970) tells it from a later one that was given the same pid."""

    pid: int
    started: float
    port: int | None = None


@dataclass(frozen=True)
class Account:
    """Another user to run as, and whether it needs root's right to pass closed folders to reach our files."""

    uid: int
    gid: int
    needs_passage: bool = False


class ProcessTable:
    """The processes of one data folder, kept in `state.json`. Threads may share it; commands lock the folder first."""

    _guard = threading.Lock()
    """One for all tables of this process: two may be of the same folder, in threads that start things at once."""

    def __init__(self, state_file: Path, logs: Path) -> None:
        self.file = state_file
        self.logs = logs

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def names(self) -> list[str]:
        return list(self._read())

    def recorded(self, name: str) -> ProcessRecord | None:
        return self._read().get(name)

    def running(self, name: str) -> ProcessRecord | None:
        """The record of a process that lives now, else None; a stale record is never acted upon."""
        record = self._read().get(name)
        return record if record is not None and is_alive(record) else None

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        account: Account | None = None,
    ) -> ProcessRecord:
        """Start a process in its own session, its output appended to `logs/<name>.log`, and remember it."""
        log = self.log_of(name)
        with explaining_os_errors(log):
            _rotate(log)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [*_as_account(account), *map(str, command)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**(os.environ if environment is None else environment), MARK: self._mark(name)},
                    cwd=directory,
                    start_new_session=True,
                    **_identity(account),
                )
        record = _identify(process.pid, port)
        # The process is meant to outlive this one, and is waited for by pid: Popen need not warn that nobody did.
        process.returncode = 0
        try:
            self.remember(name, record)
        except BaseException:
            # On a full disk: a process that nobody knows of is worse than none.
            end(record, within_s=0)
            raise
        return record

    def stop(self, name: str, *, within_s: float = 10.0, politely: signal.Signals = signal.SIGTERM) -> str:
        """Ask a process to end, wait, then kill it. Returns "stopped", "killed" or "gone" (it was not running)."""
        record = self.running(name)
        outcome = "gone" if record is None else end(record, within_s=within_s, politely=politely)
        self.forget(name)
        return outcome

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone. The record stays: that is how a crash looks."""
        if record := self.running(name):
            end(record, within_s=0.0)

    def kill_all(self) -> None:
        """kill -9 of everything that runs."""
        for name in self.names():
            self.kill(name)

    def remember(self, name: str, record: ProcessRecord) -> None:
        with self._guard:
            self._write({**self._read(), name: record})

    def forget(self, name: str) -> None:
        """Drop a record. A full disk does not stand in the way: a stale record does no harm."""
        with self._guard, contextlib.suppress(LocalError):
            records = self._read()
            if records.pop(name, None) is not None:
                self._write(records)

    def recover(self, ports: Mapping[str, int]) -> list[str]:
        """Find processes that run without a record (the command that started them was killed); returns their names."""
        marked: dict[int, tuple[str, psutil.Process]] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                folder, _, name = process.environ().get(MARK, "").rpartition("/")
                if name and folder == str(self.logs):
                    marked[process.pid] = (name, process)
        found = []
        for name, process in marked.values():
            with contextlib.suppress(psutil.Error):
                if process.ppid() not in marked and self.running(name) is None:
                    self.remember(name, ProcessRecord(process.pid, process.create_time(), ports.get(name)))
                    found.append(name)
        return found

    def _mark(self, name: str) -> str:
        return f"{self.logs}/{name}"

    def _read(self) -> dict[str, ProcessRecord]:
        try:
            stored = json.loads(self.file.read_text())["processes"]
            return {name: ProcessRecord(**record) for name, record in stored.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            # Written atomically, so only a hand or a dying disk damages it; `up` then says which ports are taken.
            return {}

    def _write(self, records: Mapping[str, ProcessRecord]) -> None:
        stored = {"processes": {name: asdict(record) for name, record in records.items()}}
        with explaining_os_errors(self.file.parent):
            write_atomically(self.file, json.dumps(stored, indent=2) + "\n")


def end_with_this_process(table: ProcessTable) -> None:
    """Leave a watcher, a sleeping shell, that kills the table's processes once this one is gone, however it went."""
    clean_up = shlex.join([sys.executable, "-m", "deploy.local.processes", str(table.file), str(table.logs)])
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", f"while kill -0 {os.getpid()}; do sleep 2; done; exec {clean_up}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # It ends after this process, so nobody here waits for it.
    watcher.returncode = 0


def is_alive(record: ProcessRecord) -> bool:
    """True when that very process runs; a zombie, or a later process under the same pid, does not count."""
    try:
        process = psutil.Process(record.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return _is_still_ending(process)
        return bool(abs(process.create_time() - record.started) < START_TIME_TOLERANCE_S)
    except psutil.NoSuchProcess:
        return False


def _is_still_ending(zombie: psutil.Process) -> bool:
    """A killed JVM is a zombie while its other threads still hold ports and files; only then it is gone."""
    try:
        return os.waitpid(zombie.pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return bool(zombie.num_threads() > 1)


def end(record: ProcessRecord, *, within_s: float, politely: signal.Signals = signal.SIGTERM) -> str:
    """Signal, wait up to `within_s` (0: do not ask), then SIGKILL. Returns "stopped" or "killed"."""
    if within_s > 0:
        _signal(record, politely)
        if _wait_gone(record, within_s):
            return "stopped"
    _signal(record, signal.SIGKILL)
    if not _wait_gone(record, 10.0):
        raise LocalError(f"Process {record.pid} does not end even when killed: look at it with `ps -p {record.pid}`.")
    return "killed"


def wait_ready(name: str, record: ProcessRecord, log: Path, ready: Callable[[], bool], within_s: float) -> float:
    """Poll until `ready()`; returns the seconds it took.

    Raises ProcessDiedError if the process ends first and LocalError if time runs out, both with its last line of log.
    """
    begun = time.monotonic()
    pause_s = 0.02
    while not ready():
        if not is_alive(record):
            raise ProcessDiedError(f"{name} ended while starting ({last_line(log)}): see {log}.")
        if time.monotonic() - begun > within_s:
            raise LocalError(
                f"{name} was not ready within {within_s:.0f} s ({last_line(log)}): see {log}, then run this again."
            )
        time.sleep(pause_s)
        pause_s = min(0.2, pause_s * 1.3)
    return time.monotonic() - begun


def run_to_end(
    command: Sequence[str | Path],
    *,
    log: Path,
    account: Account | None = None,
    directory: Path | None = None,
    within_s: float,
) -> None:
    """Run a short helper program; raises ProcessDiedError with its last line of output unless it succeeds."""
    with log.open("wb") as output:
        done = subprocess.run(
            [*_as_account(account), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            timeout=within_s,
            check=False,
            **_identity(account),
        )
    if done.returncode != 0:
        raise ProcessDiedError(f"{Path(command[0]).name} failed ({last_line(log)}): see {log}.")


def tail(log: Path, size: int = 8192) -> str:
    """The last bytes of a log as text; empty when there is none."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read().decode(errors="replace")
    return ""


def last_line(log: Path) -> str:
    """The last line that says something, for an error message; at most 200 characters."""
    lines = [line.strip() for line in tail(log).splitlines() if line.strip()]
    if not lines:
        return "it logged nothing"
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        record = json.loads(lines[-1])  # our services log JSON
        return ": ".join(str(record[key]) for key in ("message", "error") if record.get(key))[:200]
    return lines[-1][:200]


def _identify(pid: int, port: int | None) -> ProcessRecord:
    try:
        return ProcessRecord(pid=pid, started=psutil.Process(pid).create_time(), port=port)
    except psutil.NoSuchProcess:
        return ProcessRecord(pid=pid, started=0.0, port=port)


def _signal(record: ProcessRecord, number: signal.Signals) -> None:
    if is_alive(record):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


def _wait_gone(record: ProcessRecord, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while is_alive(record):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))


def _as_account(account: Account | None) -> list[str]:
    """A prefix that drops to the account but keeps the right to pass closed folders (a checkout below /root)."""
    if account is None or not account.needs_passage:
        return []
    # To read is enough; containers that lack that capability usually have the wider one.
    capability = "+dac_read_search" if _may_read_everything() else "+dac_override"
    return [
        "setpriv",
        f"--reuid={account.uid}",
        f"--regid={account.gid}",
        "--clear-groups",
        # Without it access(2), which initdb asks, would not count the capability.
        "--securebits=+no_setuid_fixup",
        f"--inh-caps={capability}",
        f"--ambient-caps={capability}",
        "--",
    ]


def _may_read_everything() -> bool:
    """True when this process holds CAP_DAC_READ_SEARCH (bit 2)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return bool(int(status.split("CapEff:")[1].split()[0], 16) & 1 << 2)
    return False


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[str | int]


def _identity(account: Account | None) -> _Identity:
    if account is None or account.needs_passage:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


if __name__ == "__main__":
    ProcessTable(Path(sys.argv[1]), Path(sys.argv[2])).kill_all()
