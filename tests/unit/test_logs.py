"""Logs: one JSON object a line, and a library that repeats itself is heard once in a while."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from shared.telemetry import logs


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def written(clock: Time) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    handler.addFilter(logs.Once("aiokafka", every_s=30, clock=clock))
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_repeated_line_of_the_library_comes_once_and_then_with_its_number(written: io.StringIO, clock: Time) -> None:
    library = logging.getLogger("aiokafka.conn")
    for _ in range(500):
        library.error("Unable connect to node with id %s: %s", 1, "refused")
    library.error("Unable connect to node with id %s: %s", 2, "refused")
    library.warning("Unable connect to node with id %s: %s", 1, "refused")
    assert [line.get("repeated") for line in lines(written)] == [None, None, None]
    clock.now += 30
    library.error("Unable connect to node with id %s: %s", 1, "refused")
    library.error("Unable connect to node with id %s: %s", 2, "refused")
    assert [line.get("repeated") for line in lines(written)[3:]] == [499, None]


def test_what_we_say_ourselves_is_never_held_back(written: io.StringIO) -> None:
    for name in ("services.deployer.worker", "aiokafkaesque"):
        for _ in range(3):
            logging.getLogger(name).error("the same")
    assert len(lines(written)) == 6


def test_lines_that_differ_are_not_remembered_without_end(clock: Time) -> None:
    once = logs.Once("aiokafka", clock=clock)
    for number in range(3 * logs.MOST_LINES):
        assert once.filter(logging.makeLogRecord({"name": "aiokafka", "msg": f"line {number}"}))
    assert len(once._said) <= logs.MOST_LINES
