"""A whole installation in one data folder: brought up, looked at and taken down, as often as one likes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local import aot, broker, cluster, platform
from deploy.local.errors import LocalError, disk_full
from deploy.local.folder import DataFolder, default_cache, free_mib, write_atomically
from deploy.local.identity import ensure_keys, read_owner
from deploy.local.infrastructure import Infrastructure
from deploy.local.platform import Program
from deploy.local.ports import DEFAULT_FRONT, Ports, require_free
from deploy.local.processes import ProcessTable, is_alive, wait_ready
from deploy.local.progress import Progress, Silent

BACKING = (broker.NAME, cluster.NAME)
FULL_BELOW_MIB = 64
"""A program that fails with less than this left has failed for want of it, whatever its log could still say."""


@dataclass(frozen=True)
class ProcessStatus:
    """One line of `mintmark status`. `state` is "running", "starting" (alive, not ready) or "dead"."""

    name: str
    state: str
    port: int | None
    pid: int
    memory_mib: int | None
    uptime_s: int | None


class Installation:
    """What the commands `up`, `down`, `status` and `env` work on."""

    def __init__(self, data: Path, cache: Path | None = None) -> None:
        self.folder = DataFolder(data.expanduser().absolute())
        self.cache = cache or default_cache()
        self.table = ProcessTable(self.folder.state, self.folder.logs)

    def up(
        self,
        *,
        front: int | None = None,
        separate: bool = False,
        infra_only: bool = False,
        progress: Progress | None = None,
    ) -> Infrastructure:
        """Start what is missing and return when everything answers; what runs already is left alone.

        `front` None keeps the ports of the last time (8700 at first), 0 picks free ones. If anything fails, what
        this call has started is stopped again and the reason is raised as LocalError.
        """
        progress = progress or Silent()
        self.folder.check_version()
        with self.folder.locked("`mintmark up`"):
            self.folder.prepare()
            self._recover()
            running_before = set(self._running())
            infrastructure = Infrastructure(self.folder.root, self._choose_ports(front), cache=self.cache)
            keys = ensure_keys(self.folder)
            wanted = [] if infra_only else platform.programs(infrastructure, keys, separate=separate)
            self._refuse_other_layout(wanted)
            try:
                self._bring_up(infrastructure, wanted, progress)
            except BaseException as error:
                disk_is_full = isinstance(error, LocalError) and free_mib(self.folder.root) < FULL_BELOW_MIB
                self._stop([name for name in self._running() if name not in running_before])
                if disk_is_full:
                    raise disk_full(self.folder.root) from error
                raise
        aot.make_in_background(self.cache)
        return infrastructure

    def down(self) -> dict[str, str]:
        """Stop services, then Kafka, then PostgreSQL. Returns name to "stopped", "killed" or "gone"."""
        self.folder.check_version()
        if not self.folder.exists():
            return {}
        with self.folder.locked("`mintmark down`"):
            self._recover()
            return self._stop(self.table.names())

    def infrastructure(self) -> Infrastructure:
        """Broker and database of this folder, as they were last started. Raises LocalError when there are none."""
        ports = self.remembered_ports()
        if ports is None:
            raise LocalError(f"There is no installation in {self.folder.root}: run `mintmark up` first.")
        return Infrastructure(self.folder.root, ports, cache=self.cache)

    def status(self) -> list[ProcessStatus]:
        """Every process that should run, without changing anything."""
        found = [self._status_of(name) for name in self.table.names()]
        return [one for one in found if one is not None]

    def exports(self) -> dict[str, str]:
        """The variables that `mintmark env` prints. Raises LocalError when there is no installation."""
        owner = read_owner(self.folder)
        ports = self.remembered_ports()
        if ports is None:
            raise LocalError(f"There is no installation in {self.folder.root}: run `mintmark up` first.")
        return {
            **platform.addresses(ports),
            "MINTMARK_API_KEY_ID": owner.id,
            "MINTMARK_API_KEY": owner.secret,
            "MINTMARK_DATA": str(self.folder.root),
        }

    def remembered_ports(self) -> Ports | None:
        """The ports of the last `up` in this folder."""
        try:
            return Ports.remembered(json.loads(self._ports_file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise LocalError(f"{self._ports_file} is damaged: delete it and give `mintmark up` the --port.") from error

    @property
    def _ports_file(self) -> Path:
        return self.folder.root / "ports.json"

    def _choose_ports(self, front: int | None) -> Ports:
        before = self.remembered_ports()
        if before and (front in (None, before.front) or (front == 0 and self._running())):
            return before
        if before and (running := self._running()):
            raise LocalError(
                f"{', '.join(running)} of this installation already run on port {before.front}: "
                "run `mintmark down` first, or leave out --port."
            )
        ports = Ports.free() if front == 0 else Ports.at(DEFAULT_FRONT if front is None else front)
        write_atomically(self._ports_file, json.dumps(ports.as_dict()) + "\n", mode=0o644)
        return ports

    def _refuse_other_layout(self, wanted: list[Program]) -> None:
        names = {program.name for program in wanted}
        others = [name for name in self._running() if name not in names and name not in BACKING]
        if wanted and others:
            raise LocalError(
                f"{', '.join(others)} already run, in another layout: run `mintmark down` first, "
                "or leave --separate as it was."
            )

    def _bring_up(self, infrastructure: Infrastructure, wanted: list[Program], progress: Progress) -> None:
        """PostgreSQL and the roles first; then Kafka and the services at once, for a service can wait for Kafka."""
        missing = [program for program in wanted if self.table.running(program.name) is None]
        for program in missing:
            require_free(program.port, f"the {program.name}")
        if not wanted:
            infrastructure.start(progress)
            return
        with ThreadPoolExecutor(2) as pool:
            kafka = pool.submit(infrastructure.start_kafka, progress)
            infrastructure.start_postgres(progress)
            if missing:
                self._provision(infrastructure)
            for program in missing:
                self._start(program)
            with progress.step("Starting the services") as report:
                kafka.result()
                for done, program in enumerate(wanted):
                    report(done, len(wanted))
                    self._await(program)

    def _provision(self, infrastructure: Infrastructure) -> None:
        from shared.db.provision import provision

        asyncio.run(provision(infrastructure.admin_dsn, infrastructure.dsns))

    def _start(self, program: Program) -> None:
        self.table.start(
            program.name,
            program.command,
            port=program.port,
            environment=program.environment,
            directory=self.folder.root,
        )

    def _await(self, program: Program) -> None:
        record = self.table.recorded(program.name)
        if record is None:
            raise LocalError(f"{program.name} was not started: run `mintmark up` again.")
        wait_ready(
            f"Process {program.name}",
            record,
            self.table.log_of(program.name),
            lambda: platform.is_ready(program.name, program.port),
            platform.READY_WITHIN_S,
        )

    def _recover(self) -> None:
        """Take up processes whose `up` was killed before it had written them down."""
        ports = self.remembered_ports()
        self.table.recover({broker.NAME: ports.kafka, cluster.NAME: ports.postgres} if ports else {})

    def _running(self) -> list[str]:
        return [name for name in self.table.names() if self.table.running(name)]

    def _stop(self, names: Sequence[str]) -> dict[str, str]:
        """Services first, all at once, while what they drain into still runs; then Kafka; then PostgreSQL."""
        programs = [name for name in names if name not in BACKING]
        outcomes: dict[str, str] = {}
        if programs:
            with ThreadPoolExecutor(len(programs)) as pool:
                stopped = pool.map(lambda name: self.table.stop(name, within_s=platform.STOP_WITHIN_S), programs)
                outcomes = dict(zip(programs, stopped, strict=True))
        if broker.NAME in names:
            outcomes[broker.NAME] = self.table.stop(broker.NAME, within_s=broker.STOP_WITHIN_S)
        if cluster.NAME in names:
            politely = cluster.STOP_SIGNALS["fast"]
            outcomes[cluster.NAME] = self.table.stop(cluster.NAME, within_s=cluster.STOP_WITHIN_S, politely=politely)
        return outcomes

    def _status_of(self, name: str) -> ProcessStatus | None:
        record = self.table.recorded(name)
        if record is None:
            return None
        if not is_alive(record):
            return ProcessStatus(name, "dead", record.port, record.pid, memory_mib=None, uptime_s=None)
        ready = record.port is not None and platform.is_ready(name, record.port)
        try:
            memory_mib = psutil.Process(record.pid).memory_info().rss // 2**20
        except psutil.Error:
            memory_mib = None
        return ProcessStatus(
            name,
            "running" if ready else "starting",
            record.port,
            record.pid,
            memory_mib=memory_mib,
            uptime_s=round(time.time() - record.started),
        )
