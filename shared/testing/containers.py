"""The broker and the database of a test run in containers: `MINTMARK_TEST_INFRA=containers`.

Images and settings are those of docker-compose.yml, so that what is tested is what is run; only addresses differ. Where
Docker is, is testcontainers' business (DOCKER_HOST and its own variables).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import yaml
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
START_S = 120
LOCAL = ("localhost", "127.0.0.1")


class ContainersUnavailable(Exception):
    """One sentence that says why no container can be started and what to do."""


def start_containers() -> tuple[str, str, Callable[[], None]]:
    """(bootstrap servers, administrator's DSN, stop) of a new Kafka and a new Postgres. Raises ContainersUnavailable.

    They are removed with all they hold by `stop`, or by testcontainers' reaper when this process ends without it.
    """
    started: list[DockerContainer] = []

    def stop() -> None:
        while started:
            started.pop().stop()

    host = _docker_host()
    try:
        kafka, postgres = _free_port(), _free_port()
        password = secrets.token_urlsafe(24)
        for container in (_kafka(host, kafka), _postgres(host, postgres, password)):
            started.append(container)
            container.start()
        bootstrap, dsn = f"{host}:{kafka}", f"postgresql://mintmark_admin:{password}@{host}:{postgres}/mintmark"
        asyncio.run(_wait(bootstrap, dsn))
    except DockerException as error:
        stop()
        raise ContainersUnavailable(
            f"Docker does not start Kafka or Postgres ({_one_line(error)}); pull the images of docker-compose.yml, "
            "or name others with KAFKA_IMAGE and POSTGRES_IMAGE."
        ) from error
    except BaseException:
        stop()
        raise
    return bootstrap, dsn, stop


def image_of(name: str) -> str:
    """The image of docker-compose.yml's `kafka` or `postgres`; KAFKA_IMAGE and POSTGRES_IMAGE name others, as there."""
    default = re.fullmatch(r"\$\{\w+:-(.*)}", _composed(name)["image"])
    assert default is not None, f"docker-compose.yml names no default image for {name}"
    return os.environ.get(f"{name.upper()}_IMAGE") or default[1]


def _kafka(host: str, port: int) -> DockerContainer:
    """One broker that says its address on the host; its port must be known before it starts, so it is not Docker's."""
    container = DockerContainer(image_of("kafka")).with_envs(**_composed("kafka")["environment"])
    container.with_env("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093")
    container.with_env("KAFKA_ADVERTISED_LISTENERS", f"INTERNAL://localhost:19092,EXTERNAL://{host}:{port}")
    return _published(container, "9092/tcp", host, port)


def _postgres(host: str, port: int, password: str) -> DockerContainer:
    """Without fsync: right for a test and for nothing else."""
    composed = _composed("postgres")
    container = DockerContainer(image_of("postgres")).with_command([*composed["command"], "-c", "fsync=off"])
    container.with_envs(**{key: value for key, value in composed["environment"].items() if not key.endswith("_FILE")})
    container.with_env("POSTGRES_PASSWORD", password)
    return _published(container, "5432/tcp", host, port)


def _published(container: DockerContainer, inside: str, host: str, port: int) -> DockerContainer:
    """Reachable from this machine alone, where Docker is on this machine."""
    address: Any = ("127.0.0.1", port) if host in LOCAL else port
    container.ports[inside] = address
    return container


def _composed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"][name]
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _wait(bootstrap: str, dsn: str) -> None:
    """Until both answer; raises ContainersUnavailable with the last reason after START_S seconds."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says of each try that nobody is there yet
    try:
        await asyncio.gather(
            _answering("Kafka", lambda: _ask_kafka(bootstrap)), _answering("Postgres", lambda: _ask(dsn))
        )
    finally:
        logging.getLogger("aiokafka").setLevel(logging.NOTSET)


async def _answering(what: str, ask: Callable[[], Awaitable[None]]) -> None:
    reason: Exception | None = None
    try:
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await ask()
                    return
                except (OSError, KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    reason = error
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise ContainersUnavailable(
            f"{what} in its container did not answer within {START_S} s ({reason}); look at `docker logs`."
        ) from reason


async def _ask_kafka(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        await admin.list_topics()
    finally:
        await admin.close()


async def _ask(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=5)
    await connection.close()


def _docker_host() -> str:
    """Where published ports answer. Raises ContainersUnavailable when no daemon does."""
    try:
        return DockerClient().host()
    except DockerException as error:
        raise ContainersUnavailable(
            f"MINTMARK_TEST_INFRA=containers needs a Docker daemon, and none answers ({_one_line(error)}); start it, "
            "set DOCKER_HOST, or leave MINTMARK_TEST_INFRA away to test without Docker."
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
