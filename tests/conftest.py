"""A Kafka and a Postgres for each worker of the run; an installation of its own for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from shared.testing.backing import ADMIN_DSN, BOOTSTRAP, Backing
from shared.testing.installation import Installation

# A busy machine is slow at whatever Hypothesis does; no example is judged by its time.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

WITHOUT_BACKING = ("tests/unit", "tests/contracts", "tests/architecture", "tests/kubernetes")


def pytest_configure(config: pytest.Config) -> None:
    """Start the backing in the controlling process, before workers are there; they inherit its addresses."""
    if hasattr(config, "workerinput") or BOOTSTRAP in os.environ or config.option.collectonly:
        return
    asked = [str(argument).split("::")[0].rstrip("/") for argument in config.args]
    if asked and all(argument.startswith(WITHOUT_BACKING) for argument in asked):
        return
    if os.environ.get("MINTMARK_TEST_INFRA") == "containers":
        from shared.testing.containers import ContainersUnavailable, start_containers

        try:
            bootstrap, admin_dsn, stop = start_containers()
        except ContainersUnavailable as error:
            raise pytest.UsageError(str(error)) from error
    else:
        from deploy.local.infrastructure import start_infrastructure

        folder = Path(tempfile.mkdtemp(prefix="mintmark-test-"))
        # A broker each: the topics of a whole run are more files than one process may open.
        number = max(1, min(4, getattr(config.option, "numprocesses", None) or 1))
        with ThreadPoolExecutor(number) as pool:
            folders = [folder / str(worker) for worker in range(number)]
            started = list(pool.map(lambda one: start_infrastructure(one, throwaway=True), folders))
        bootstrap = " ".join(one.kafka_bootstrap for one in started)
        admin_dsn = " ".join(one.admin_dsn for one in started)

        def stop() -> None:
            for one in started:
                one.stop()
            shutil.rmtree(folder, ignore_errors=True)

    os.environ[BOOTSTRAP], os.environ[ADMIN_DSN] = bootstrap, admin_dsn
    config.add_cleanup(stop)


@pytest.fixture
def backing() -> Backing:
    return Backing.of_run()


@pytest.fixture
async def installation(backing: Backing, tmp_path: Path) -> AsyncIterator[Installation]:
    """Every service's tables in a database of this test's own; no service runs until `installation.start(…)`."""
    made = await Installation(backing, tmp_path / "installation").prepare()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def bare_installation(backing: Backing, tmp_path: Path) -> AsyncIterator[Installation]:
    """Roles and schemas without tables: for tests of the kernel."""
    made = await Installation(backing, tmp_path / "installation").prepare(tables=False)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine's environment reaches a test."""
    for name in list(os.environ):
        kept = name in (BOOTSTRAP, ADMIN_DSN, "MINTMARK_CACHE") or name.startswith("MINTMARK_TEST_")
        if name.startswith("MINTMARK_") and not kept:
            monkeypatch.delenv(name)
    yield
