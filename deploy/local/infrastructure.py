"""Kafka and PostgreSQL together: what `mintmark up` stands on, and what tests start, break and throw away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from deploy.local import aot
from deploy.local.broker import KafkaBroker
from deploy.local.cluster import PostgresCluster, StopMode
from deploy.local.credentials import SERVICES, Passwords
from deploy.local.errors import PortTakenError
from deploy.local.folder import DataFolder, default_cache
from deploy.local.ports import Ports
from deploy.local.processes import ProcessTable, end_with_this_process
from deploy.local.progress import Progress, Silent


class Infrastructure:
    """A broker and a database that belong to one data folder.

    Methods block and are safe to call from any thread: in an async test, `await asyncio.to_thread(infra.kill_kafka)`.
    """

    def __init__(self, data: Path, ports: Ports, *, durable: bool = True, cache: Path | None = None) -> None:
        self.folder = DataFolder(data.absolute())
        self.ports = ports
        self.cache = (cache or default_cache()).absolute()
        self.folder.prepare()
        self.table = self.table_of(data)
        self._passwords = Passwords.of(
            self.folder.secrets / "postgres.json", cluster_exists=(self.folder.postgres / "cluster").exists()
        )
        self._kafka = KafkaBroker(
            self.folder.kafka,
            self.cache,
            self.table,
            port=ports.kafka,
            controller_port=ports.controller,
            # A run of tests makes thousands of topics, and each has its part of the heap.
            jvm_flags=() if durable else ("-Xmx512m",),
        )
        self._postgres = PostgresCluster(
            self.folder.postgres,
            self.table,
            port=ports.postgres,
            admin_password=self._passwords.admin,
            durable=durable,
        )

    @staticmethod
    def table_of(data: Path) -> ProcessTable:
        """The processes of a data folder, for a look that changes nothing."""
        folder = DataFolder(data.absolute())
        return ProcessTable(folder.state, folder.logs)

    @property
    def kafka_bootstrap(self) -> str:
        """`127.0.0.1:port`."""
        return self._kafka.bootstrap

    @property
    def admin_dsn(self) -> str:
        """A superuser of database `mintmark`."""
        return self._postgres.admin_dsn

    @property
    def dsns(self) -> dict[str, str]:
        """Service name to DSN; the roles exist once `python -m services.admin provision` has made them."""
        return {service: self._passwords.dsn_of(service, self.ports.postgres) for service in SERVICES}

    def environment(self) -> dict[str, str]:
        """The variables by which services find this broker and this database."""
        variables = {f"MINTMARK_{service.upper()}_DSN": dsn for service, dsn in self.dsns.items()}
        return {
            "MINTMARK_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "MINTMARK_ADMIN_DSN": self.admin_dsn,
            **variables,
        }

    def start(self, progress: Progress | None = None) -> None:
        """Start what is down, both at once; returns when both answer. The first failure is raised."""
        progress = progress or Silent()
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(self._postgres.start, progress), pool.submit(self._kafka.start, progress)]
        for one in both:
            one.result()

    def stop(self) -> dict[str, str]:
        """Stop Kafka, then PostgreSQL; says for each whether it was stopped, killed or gone."""
        return {"kafka": self._kafka.stop(), "postgres": self._postgres.stop()}

    def start_kafka(self, progress: Progress | None = None) -> None:
        self._kafka.start(progress)

    def stop_kafka(self) -> None:
        self._kafka.stop()

    def kill_kafka(self) -> None:
        """kill -9, as a crash would."""
        self._kafka.kill()

    def start_postgres(self, progress: Progress | None = None) -> None:
        self._postgres.start(progress)

    def stop_postgres(self, mode: StopMode = "fast") -> None:
        self._postgres.stop(mode)

    def kill_postgres(self) -> None:
        """kill -9 of the postmaster, as a crash would."""
        self._postgres.kill()

    def restart_postgres(self, mode: StopMode = "fast") -> None:
        """Stop in the given mode ("immediate" makes the next start recover from the log) and start again."""
        self._postgres.stop(mode)
        self._postgres.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_infrastructure(
    data: Path,
    *,
    ports: Ports | None = None,
    throwaway: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Infrastructure:
    """Start a real Kafka and a real PostgreSQL in `data` and return when both answer.

    `ports` default to free ones. `throwaway=True` is for tests: no fsync, and both end when this process ends, however
    it ends. Jars and the AOT cache come from `cache` (default MINTMARK_CACHE, see `folder.default_cache`).
    """
    attempts = 1 if ports else 3
    while True:
        infrastructure = Infrastructure(data, ports or Ports.free(), durable=not throwaway, cache=cache)
        try:
            infrastructure.start(progress)
        except PortTakenError:
            # A free port can be taken by somebody else before we bind it.
            infrastructure.stop()
            attempts -= 1
            if attempts == 0:
                raise
            continue
        except BaseException:
            infrastructure.stop()
            raise
        if throwaway:
            end_with_this_process(infrastructure.table)
            aot.make_in_background(infrastructure.cache)
        return infrastructure
