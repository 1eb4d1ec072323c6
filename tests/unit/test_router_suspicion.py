"""Suspicious use: simulated scrapers and probers are told of, people of the census and retries are not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from services.router.gateway.suspicion.sketches import Distinct, simhash
from services.router.gateway.suspicion.watch import MOST_CALLERS, Watch
from services.router.group_settings.guardrails import Suspicion

CENSUS = Path(__file__).parents[2] / "examples/census/data/live_2016.parquet"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def people() -> list[Row]:
    """Rows of the census in a fixed disorder."""
    rows: list[Row] = [
        {name: value for name, value in row.items() if name not in ("id", "employed", "year")}
        for row in pq.read_table(CENSUS).to_pylist()[::5]
    ]
    random.Random(1).shuffle(rows)
    return rows


class Caller:
    """One caller, who asks `a_second` times a second."""

    def __init__(self, limits: Suspicion | None = None, a_second: float = 20) -> None:
        self.watch = Watch(seed=1)
        self.limits = limits or Suspicion()
        self.now = 1000.0
        self.step = 1 / a_second
        self.kinds: list[str] = []

    def asks(self, row: Row | None = None, score: float | None = None, text: str | None = None) -> None:
        self.now += self.step
        features = None if row is None else orjson.dumps(row)
        found = self.watch.observe(
            "g", "user:mallory", self.limits, features=features, text=text, score=score, now=self.now
        )
        assert all("user:mallory" in one.reason for one in found)
        self.kinds += [one.kind for one in found]


@pytest.mark.parametrize("a_second", [2, 20, 200])
def test_people_of_the_census_raise_no_suspicion(people: list[Row], a_second: float) -> None:
    caller, chance = Caller(a_second=a_second), random.Random(2)
    for row in people[:7000]:
        caller.asks(row, chance.betavariate(0.8, 0.8))
    assert caller.kinds == []


def test_retries_and_probes_of_health_raise_no_suspicion(people: list[Row]) -> None:
    caller = Caller()
    for _ in range(3000):
        caller.asks(people[0], 0.5)
    assert caller.kinds == []


def test_a_scraper_who_samples_the_feature_space_is_told_of_once_an_hour(people: list[Row]) -> None:
    ranges = {name: (min(row[name] for row in people), max(row[name] for row in people)) for name in people[0]}
    caller, chance = Caller(), random.Random(3)
    for _ in range(4000):
        caller.asks({name: chance.randint(*between) for name, between in ranges.items()}, chance.random())
    assert caller.kinds == ["scraping"]


def test_a_scraper_of_a_grid_is_told_of(people: list[Row]) -> None:
    del people
    caller = Caller(Suspicion(scraping_distinct=1000))
    for number in range(2000):
        caller.asks({"a": number % 7, "b": number // 7 % 11, "c": number // 77 % 13, "d": number % 10}, 0.9)
    assert "scraping" in caller.kinds


def test_a_burst_of_near_duplicates_is_told_of(people: list[Row]) -> None:
    caller, chance = Caller(), random.Random(4)
    for row in people[:200]:
        caller.asks(row, 0.9)
    for _ in range(80):
        caller.asks({**people[300], "AGEP": chance.randint(0, 94), "SCHL": chance.randint(0, 24)}, 0.9)
    assert caller.kinds == ["near-duplicates"]


def test_near_duplicates_spread_over_time_are_none(people: list[Row]) -> None:
    caller = Caller(a_second=0.1)
    for age in range(90):
        caller.asks({**people[300], "AGEP": age}, 0.9)
    assert caller.kinds == []


def test_probing_around_the_decision_boundary_is_told_of(people: list[Row]) -> None:
    caller, age = Caller(a_second=0.5), 40.0
    for number in range(60):  # bisection: the side of the last answer decides where to look next
        side = 1 if number % 2 else -1
        age += side * 3 / (1 + number)
        caller.asks({**people[300], "AGEP": age}, 0.5 + side * 0.05)
    assert caller.kinds == ["boundary-probing"]


def test_texts_that_are_almost_one_are_told_of_and_others_are_not() -> None:
    caller, chance = Caller(), random.Random(5)
    words = [f"word{number}" for number in range(2000)]
    for _ in range(500):
        caller.asks(text=" ".join(chance.choices(words, k=60)))
    assert caller.kinds == []
    base = chance.choices(words, k=60)
    for number in range(70):
        caller.asks(text=" ".join([*base[:-1], f"other{number}"]))
    assert caller.kinds == ["near-duplicates"]
    assert simhash("a b c d e f") == simhash("A  b, c d e F!")


def test_the_number_of_distinct_inputs_is_estimated_in_bounded_memory() -> None:
    chance, found = random.Random(6), Distinct()
    for _ in range(20_000):
        digest = chance.getrandbits(64)
        found.add(digest)
        found.add(digest)
    assert 16_000 < found.estimate < 24_000
    few = Distinct()
    for number in range(100):
        few.add(number % 10)
    assert few.estimate == 10


def test_callers_are_forgotten_when_there_are_too_many() -> None:
    watch = Watch()
    for number in range(MOST_CALLERS * 2):
        watch.observe("g", f"user:{number}", Suspicion(), features=b'{"a": 1}', text=None, score=None, now=1.0)
    assert len(watch._callers) == MOST_CALLERS
