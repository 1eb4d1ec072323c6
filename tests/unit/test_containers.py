"""Tests in containers: the images are those of docker-compose.yml; that there is no Docker is said in one sentence."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from shared.testing.containers import ContainersUnavailable, image_of, start_containers

ROOT = Path(__file__).parents[2]
NOBODY = "unix:///nowhere/docker.sock"


def test_images_are_those_of_compose_unless_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_IMAGE", raising=False)
    monkeypatch.setenv("POSTGRES_IMAGE", "ours/postgres:18")
    assert image_of("kafka").startswith("apache/kafka:")
    assert image_of("postgres") == "ours/postgres:18"


def test_without_docker_the_reason_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    with pytest.raises(ContainersUnavailable, match="needs a Docker daemon, and none answers") as caught:
        start_containers()
    assert "\n" not in str(caught.value)


def test_a_test_run_says_so_and_ends() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINTMARK_")}
    environment |= {"DOCKER_HOST": NOBODY, "MINTMARK_TEST_INFRA": "containers"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/integration/test_bus.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    said = run.stderr.strip().splitlines()
    assert len(said) == 1, run.stderr
    assert said[0].startswith("ERROR: MINTMARK_TEST_INFRA=containers needs a Docker daemon")


@pytest.mark.containers
def test_both_answer_and_are_gone_when_stopped() -> None:
    _, dsn, stop = start_containers()
    try:
        assert asyncio.run(_version(dsn)).startswith("PostgreSQL 18")
    finally:
        stop()
    with pytest.raises(OSError):
        asyncio.run(_version(dsn))


async def _version(dsn: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        return str(await connection.fetchval("SELECT version()"))
    finally:
        await connection.close()
