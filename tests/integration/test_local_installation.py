"""`mintmark up` and its companions, as a person meets them: typed on a command line, in a folder of their own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from mintmark.cli.main import app
from typer.testing import CliRunner, Result

from deploy.local.folder import FORMAT_VERSION
from deploy.local.installation import Installation


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("installation") / "data"
    run("up", "--infra-only", "--port", "0", data=folder)
    yield folder
    run("down", data=folder)


def type_in(*arguments: str, data: Path) -> Result:
    return CliRunner().invoke(app, [*arguments, "--data", str(data)])


def run(*arguments: str, data: Path) -> str:
    """What a command that succeeds prints."""
    done = type_in(*arguments, data=data)
    assert done.exit_code == 0, done.output
    return done.stdout


def one_line_error(*arguments: str, data: Path) -> str:
    """What a command that fails says: one line, no traceback."""
    done = type_in(*arguments, data=data)
    assert done.exit_code == 1, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("mintmark: ")]
    assert len(lines) == 1, done.output
    assert "Traceback" not in done.output
    return lines[0]


def pids(data: Path) -> dict[str, int]:
    found = json.loads(run("status", "--json", data=data))
    assert found["healthy"] is True
    return {process["name"]: process["pid"] for process in found["processes"]}


def test_a_second_up_finds_the_first(data: Path) -> None:
    before = pids(data)
    assert "Mintmark is up" in run("up", "--infra-only", data=data)
    assert pids(data) == before


async def test_after_kill_9_of_everything_up_brings_back_all_data(data: Path) -> None:
    run("up", "--infra-only", data=data)
    before = pids(data)
    dsn = Installation(data).infrastructure().admin_dsn
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
    await connection.execute("INSERT INTO kept VALUES (1)")
    await connection.close()

    Installation(data).table.kill_all()
    assert type_in("status", data=data).exit_code == 1
    run("up", "--infra-only", data=data)

    assert not set(before.values()) & set(pids(data).values())
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT count(*) FROM kept") == 1
    await connection.close()


def test_up_restarts_only_what_has_died(data: Path) -> None:
    run("up", "--infra-only", data=data)
    before = pids(data)
    Installation(data).table.kill("kafka")

    dead = type_in("status", data=data)
    assert dead.exit_code == 1
    assert "dead" in dead.stdout and "mintmark up" in dead.stdout

    run("up", "--infra-only", data=data)
    after = pids(data)
    assert after["postgres"] == before["postgres"]
    assert after["kafka"] != before["kafka"]


def test_up_takes_up_processes_that_nobody_wrote_down(data: Path) -> None:
    """Given an `up` that was killed before it had written its state, then the next one finds what it had started."""
    run("up", "--infra-only", data=data)
    before = pids(data)
    (data / "state.json").unlink()
    run("up", "--infra-only", data=data)
    assert pids(data) == before


def test_the_exports_work_in_a_shell(data: Path) -> None:
    exports = run("env", data=data)
    script = 'eval "$1"; echo "$MINTMARK_URL $MINTMARK_GATEWAY_URL $MINTMARK_KAFKA_BOOTSTRAP"; echo "$MINTMARK_API_KEY"'
    said = subprocess.run(["sh", "-c", script, "sh", exports], capture_output=True, text=True, check=True)
    shown = said.stdout.splitlines()
    ports = Installation(data).remembered_ports()
    assert ports is not None
    assert shown[0] == f"http://127.0.0.1:{ports.front} http://127.0.0.1:{ports.gateway} 127.0.0.1:{ports.kafka}"
    assert shown[1].startswith("mmk_")


def test_logs_show_one_or_all(data: Path) -> None:
    assert "ready to accept connections" in run("logs", "postgres", data=data)
    assert {line.split(": ")[0] for line in run("logs", data=data).splitlines()} >= {"kafka", "postgres"}
    assert "there are" in one_line_error("logs", "nonsense", data=data)


def test_the_doctor_finds_nothing_wrong_and_names_what_is(data: Path) -> None:
    assert "FAIL" not in run("doctor", data=data)
    (data / "secrets" / "owner.json").chmod(0o644)
    try:
        said = type_in("doctor", data=data)
        assert said.exit_code == 1
        assert f"chmod -R go= {data / 'secrets'}" in said.stdout
    finally:
        (data / "secrets" / "owner.json").chmod(0o600)


def test_another_port_while_it_runs_is_refused(data: Path) -> None:
    run("up", "--infra-only", data=data)
    assert "run `mintmark down` first, or leave out --port" in one_line_error("up", "--port", "9700", data=data)


def test_two_at_once_do_not_trample_each_other(data: Path) -> None:
    with Installation(data).folder.locked("`mintmark up`"):
        assert "is at work" in one_line_error("up", "--infra-only", data=data)
        assert "is at work" in one_line_error("down", data=data)


def test_a_taken_port_is_named_with_its_holder_and_nothing_stays_behind(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        front = min(probe.getsockname()[1], 60_000)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", front + 92))
        taken.listen()
        said = one_line_error("up", "--infra-only", "--port", str(front), data=tmp_path / "data")
        assert f"Port {front + 92}, needed for Kafka, is taken by process {os.getpid()}" in said
        assert "--port" in said
    assert Installation(tmp_path / "data").status() == []


def test_a_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mintmark.json").write_text(json.dumps({"format": FORMAT_VERSION + 1}))
    for command in ("up", "down", "status"):
        assert "update Mintmark" in one_line_error(command, data=tmp_path)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Disks of a test's own, which only root can make."""
    points: list[Path] = []

    def mount(options: str) -> Path:
        point = tmp_path / f"disk-{len(points)}"
        point.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)], check=False)
        if done.returncode != 0:
            pytest.skip("no mounting here")
        points.append(point)
        return point

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount")
    yield mount
    for point in points:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def test_a_folder_that_cannot_be_written_is_named(mounted: Callable[[str], Path]) -> None:
    said = one_line_error("up", "--infra-only", data=mounted("ro") / "data")
    assert "cannot be written by user id 0: fix its permissions, or choose another folder with --data" in said


def test_a_full_disk_is_named_up_front(mounted: Callable[[str], Path]) -> None:
    said = one_line_error("up", "--infra-only", data=mounted("size=1m") / "data")
    assert "MiB free and 500 MiB are needed: free some space" in said


def test_a_disk_that_fills_up_half_way_is_named(
    mounted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a disk that had room when it was looked at, when the cluster no longer fits, then that is what is said."""
    monkeypatch.setattr("deploy.local.folder.MIN_FREE_MIB", 0)
    data = mounted("size=20m") / "data"
    assert f"The disk of {data} is full: free some space" in one_line_error(
        "up", "--infra-only", "--port", "0", data=data
    )
    assert Installation(data).status() == []


def test_without_an_installation_every_command_says_what_to_do(tmp_path: Path) -> None:
    assert "run `mintmark up` first" in one_line_error("env", data=tmp_path / "none")
    assert "run `mintmark up` first" in one_line_error("logs", data=tmp_path / "none")
    assert "Nothing was running" in run("down", data=tmp_path / "none")
    assert not (tmp_path / "none").exists()
