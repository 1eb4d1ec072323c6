"""Processes are found again, told apart and ended, whatever happened to them or to their record."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy.local.errors import LocalError, ProcessDiedError
from deploy.local.processes import ProcessRecord, ProcessTable, is_alive, run_to_end, wait_ready

SLEEP = ["sleep", "60"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)",
]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[ProcessTable]:
    made = ProcessTable(tmp_path / "state.json", tmp_path)
    yield made
    made.recover({})
    for name in made.names():
        made.kill(name)


def test_a_process_survives_the_table_that_started_it(table: ProcessTable, tmp_path: Path) -> None:
    record = table.start("one", SLEEP, port=7)
    another = ProcessTable(tmp_path / "state.json", tmp_path)
    assert another.running("one") == record
    assert os.getsid(record.pid) == record.pid != os.getsid(0)


def test_what_two_tables_of_a_folder_remember_at_once_is_all_there(table: ProcessTable, tmp_path: Path) -> None:
    """Kafka is started by one thread, services by another, each with a table of its own."""
    tables = table, ProcessTable(tmp_path / "state.json", tmp_path)
    record = ProcessRecord(2**22 + 1, 0.0)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(tables[n % 2].remember, f"p{n}", record) for n in range(40)]
    assert [one.exception() for one in done] == [None] * 40
    assert sorted(table.names()) == sorted(f"p{n}" for n in range(40))


def test_a_stopped_process_is_forgotten(table: ProcessTable) -> None:
    record = table.start("one", SLEEP)
    assert table.stop("one") == "stopped"
    assert not is_alive(record)
    assert table.names() == []
    assert table.stop("one") == "gone"


def test_one_that_does_not_listen_is_killed_after_the_bound(table: ProcessTable) -> None:
    table.start("one", STUBBORN)
    while "on" not in table.log_of("one").read_text():
        time.sleep(0.01)
    assert table.stop("one", within_s=0.3) == "killed"


def test_a_killed_child_counts_as_dead_though_nobody_waited_for_it(table: ProcessTable) -> None:
    record = table.start("one", SLEEP)
    os.kill(record.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while is_alive(record):
        assert time.monotonic() < deadline
    assert table.running("one") is None
    assert table.recorded("one") == record


def test_a_recycled_pid_is_never_hit(table: ProcessTable) -> None:
    """Given a record whose pid now belongs to a younger process, when it is stopped, then that process lives on."""
    innocent = table.start("innocent", SLEEP)
    table.remember("old", replace(innocent, started=innocent.started - 3600))

    assert table.running("old") is None
    assert table.stop("old") == "gone"
    table.kill("old")
    assert is_alive(innocent)


def test_processes_without_a_record_are_found_again(table: ProcessTable, tmp_path: Path) -> None:
    record = table.start("one", SLEEP, port=7)
    (tmp_path / "state.json").unlink()
    assert table.running("one") is None

    assert table.recover({"one": 7}) == ["one"]
    assert table.running("one") == record


def test_only_ones_own_processes_are_found(table: ProcessTable, tmp_path: Path) -> None:
    elsewhere = ProcessTable(tmp_path / "other.json", tmp_path / "other")
    (tmp_path / "other").mkdir()
    elsewhere.start("theirs", SLEEP)
    try:
        assert table.recover({}) == []
    finally:
        elsewhere.kill("theirs")


def test_a_damaged_state_file_is_like_none(table: ProcessTable, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"processes": [1, 2')
    assert table.names() == []
    table.start("one", SLEEP)
    assert table.running("one") is not None


def test_a_process_that_dies_while_starting_is_reported_with_its_last_words(table: ProcessTable) -> None:
    record = table.start("one", ["sh", "-c", "echo no such topic; exit 3"])
    with pytest.raises(ProcessDiedError, match=r"One ended while starting \(no such topic\): see .*one\.log"):
        wait_ready("One", record, table.log_of("one"), lambda: False, within_s=10)


def test_a_process_that_is_never_ready_is_reported(table: ProcessTable) -> None:
    record = table.start("one", SLEEP)
    with pytest.raises(LocalError, match=r"not ready within 0 s \(it logged nothing\)"):
        wait_ready("One", record, table.log_of("one"), lambda: False, within_s=0.1)


def test_a_failing_helper_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProcessDiedError, match=r"sh failed \(broken\)"):
        run_to_end(["sh", "-c", "echo broken; exit 1"], log=tmp_path / "log", within_s=10)


def test_a_log_does_not_grow_for_ever(table: ProcessTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.local.processes.MAX_LOG_BYTES", 10)
    table.log_of("one").write_text("a" * 11)
    record = table.start("one", ["sh", "-c", "echo new"])
    psutil.wait_procs([psutil.Process(record.pid)] if psutil.pid_exists(record.pid) else [], timeout=5)
    assert table.log_of("one").with_suffix(".log.1").read_text() == "a" * 11
    assert "a" not in table.log_of("one").read_text()
