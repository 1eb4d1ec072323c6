"""Rules look where they were told to, and the cache gives back what it was given while it has room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.domain import Group, Version, weigh
from services.router.gateway.cache import OVERHEAD_BYTES, Cache, key_of
from services.router.gateway.rows import Answer
from services.router.gateway.rules import MISSING, Rules, at, steps_of
from services.router.group_settings.routing import Cache as CacheSettings
from services.router.group_settings.routing import Rule

ONE, TWO = (Version("mm:model/card", number, f"sha256:{number:064x}") for number in (1, 2))
GROUP = weigh(Group("cards", "default", 1, ONE), [(TWO, 0)], expected_revision=1)
TO_TWO = {"urn": TWO.urn, "version": 2}


@dataclass
class Asked:
    headers: dict[bytes, str] = field(default_factory=dict)
    unit: str = "somebody"
    value: Any = MISSING

    def header(self, name: bytes) -> str | None:
        return self.headers.get(name)

    def attribute(self, name: str) -> Any:
        return self.value.get(name, MISSING) if isinstance(self.value, dict) else MISSING


def matches(condition: dict[str, Any], asked: Asked) -> bool:
    rule = Rule.model_validate({"name": "r", "when": [condition], "to": TO_TWO})
    return Rules([rule], GROUP).match(asked) is not None


BODY = {"a": {"b": [{"c": 1}, None, "x"]}, "n": 3, "t": True, "z": None}
HOLDS: list[tuple[dict[str, Any], bool]] = [
    ({"header": "X-Cohort", "equals": "beta"}, True),
    ({"header": "x-cohort", "prefix": "be"}, True),
    ({"header": "x-cohort", "in": ["alpha", "beta"]}, True),
    ({"header": "x-cohort", "equals": "Beta"}, False),
    ({"header": "x-other", "present": True}, False),
    ({"header": "x-other", "present": False}, True),
    ({"header": "x-number", "equals": 3}, True),
    ({"header": "x-flag", "equals": True}, True),
    ({"path": "$.a.b[0].c", "equals": 1}, True),
    ({"path": "a.b.0.c", "equals": 1.0}, True),
    ({"path": "a.b[0].c", "equals": True}, False),
    ({"path": "a.b[0].c", "equals": "1"}, False),
    ({"path": "a.b[2]", "prefix": "x"}, True),
    ({"path": "a.b[1]", "present": True}, True),
    ({"path": "a.b[9].c", "present": True}, False),
    ({"path": "z", "present": True}, True),
    ({"attribute": "n", "in": [2, 3]}, True),
    ({"attribute": "t", "equals": 1}, False),
    ({"attribute": "a", "equals": "x"}, False),
    ({"unit": True, "prefix": "some"}, True),
    ({"unit": True, "equals": "else"}, False),
]


@pytest.mark.parametrize(("condition", "expected"), HOLDS)
def test_a_condition_holds_or_not(condition: dict[str, Any], expected: bool) -> None:
    headers = {b"x-cohort": "beta", b"x-number": "3", b"x-flag": "true"}
    assert matches(condition, Asked(headers, value=BODY)) is expected


def test_the_first_rule_decides_and_all_its_conditions_must_hold() -> None:
    beta, number = {"header": "c", "equals": "b"}, {"attribute": "n", "equals": 3}
    rules = Rules(
        [
            Rule.model_validate({"name": "both", "when": [beta, number], "to": TO_TWO}),
            Rule.model_validate({"name": "safe", "when": [beta], "to": "champion"}),
            Rule.model_validate({"name": "gone", "when": [number], "to": {"urn": "mm:model/gone", "version": 1}}),
        ],
        GROUP,
    )

    def said(asked: Asked) -> tuple[str, int | None] | None:
        found = rules.match(asked)
        return None if found is None else (found.rule, found.arm)

    assert said(Asked({b"c": "b"}, value=BODY)) == ("both", 1)
    assert said(Asked({b"c": "b"})) == ("safe", 0)
    assert said(Asked(value=BODY)) == ("gone", None), "not one of the group's: the weights decide, and the row tells"
    assert said(Asked()) is None


def test_a_split_is_by_unit_and_of_its_own() -> None:
    shares = [{"to": {"urn": ONE.urn, "version": 1}, "weight_bp": 7000}, {"to": TO_TWO, "weight_bp": 3000}]
    rules = Rules([Rule.model_validate({"name": "s", "when": [{"unit": True, "prefix": "u"}], "split": shares})], GROUP)
    found = [rules.match(Asked(unit=f"u{number}")) for number in range(4000)]
    assert 0.27 < sum(one is not None and one.arm == 1 for one in found) / 4000 < 0.33
    assert found == [rules.match(Asked(unit=f"u{number}")) for number in range(4000)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, st.lists(st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True) | st.integers(0, 5), min_size=1))
def test_no_path_breaks_on_any_body(value: Any, steps: list[str | int]) -> None:
    at(value, steps)


def test_a_path_is_its_steps() -> None:
    assert steps_of("$.a.b[0].c d[12]") == ("a", "b", 0, "c d", 12)
    assert steps_of("messages[0].role") == ("messages", 0, "role")


@dataclass
class Asks:
    """As much of a translator as the cache looks at."""

    input: bytes
    protocol: str = "chat"
    streams: bool = False

    @property
    def canonical(self) -> Any:
        return orjson.loads(self.input)


def key(body: bytes, digest: str = "d", **more: Any) -> bytes | None:
    return key_of(digest, Asks(body, **more))  # type: ignore[arg-type]


def test_the_cache_knows_a_request_by_its_value() -> None:
    one = b'{"a": 1, "b": [2]}'
    assert key(one) == key(b'{"b":[2],"a":1}') is not None
    assert len({key(one), key(one, "e"), key(one, protocol="messages"), key(b'{"a":1,"b":[3]}')}) == 4


DOUBTFUL = [b'{"a":1180591620717411303424}', b'{"a":1,"a":1}', b'{"a":{"b":1,"b":2}}']


@pytest.mark.parametrize("body", DOUBTFUL)
def test_what_two_readers_may_read_otherwise_is_never_kept(body: bytes) -> None:
    assert key(body) is None
    assert key(b'{"a":1}', streams=True) is None


def test_an_answer_lives_for_a_while_and_is_paid_once() -> None:
    cache = Cache(CacheSettings(ttl_s=10))
    cache.keep(b"k", Answer(200, b"h: v\r\n", b"body", output=b"{}", input_tokens=3, output_tokens=4), 0)
    found = cache.find(b"k", 9.9)
    assert found == Answer(200, b"h: v\r\n", b"body", output=b"{}")
    assert found is not None
    found.headers += b"x-mine: 1\r\n"
    again = cache.find(b"k", 9.9)
    assert again is not None and again.headers == b"h: v\r\n"
    assert (cache.find(b"k", 10.0), len(cache), cache.size, cache.hits, cache.misses) == (None, 0, 0, 2, 1)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4000)), max_size=200), st.integers(1, 8))
def test_the_cache_never_outgrows_its_bounds(steps: list[tuple[int, int]], entries: int) -> None:
    settings = CacheSettings(ttl_s=100, max_entries=entries, max_bytes=8192)
    cache, last = Cache(settings), dict[bytes, bytes]()
    for now, (number, size) in enumerate(steps):
        key, body = bytes([number]), bytes(size)
        cache.keep(key, Answer(200, body=body), now)
        last[key] = body
        assert len(cache) <= entries and cache.size <= 8192
        found = cache.find(key, now)
        assert found is not None and found.body == body, "what was just kept is there"
    for key, body in last.items():
        found = cache.find(key, len(steps))
        assert found is None or found.body == body
    assert cache.size >= len(cache) * OVERHEAD_BYTES
