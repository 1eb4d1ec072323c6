"""Whom an experiment counts a request for: who was drawn by weight, once, whoever answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from services.router.comparison.aggregates import CACHED, Outcome, aggregate
from services.router.comparison.ledger import summed
from services.router.domain import Group, Version, weigh
from services.router.handlers.comparisons import Comparison, compared, strata, weights_of
from services.router.handlers.measuring import live_figures

ONE, TWO = (Version("mm:model/card", number, f"sha256:{number:064x}") for number in (1, 2))
GROUP = weigh(Group("cards", "default", 1, ONE), [(TWO, 5_000)], expected_revision=1)
EACH = 200


def requests(of: Version, count: int = EACH, **more: Any) -> list[Outcome]:
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    return [
        Outcome(
            **{
                "request_id": UUID(int=n), "at": noon, "revision": 2, "asset": of.urn, "version": of.version,
                "digest": of.digest, "unit": f"{of.version}-{n}", "status": 200, "error_code": None, "latency_ms": 9.0,
                **more,
            }
        )
        for n in range(count)
    ]  # fmt: skip


def stored(rows: list[Outcome]) -> list[dict[str, Any]]:
    return [{**key._asdict(), "body": part.dumped()} for key, part in aggregate(rows).items()]


def shown(rows: list[Outcome]) -> Comparison:
    return compared(GROUP, 1, 2, stored(rows), {2: weights_of(GROUP)}, None)


FAILED = {"status": 503, "error_code": "upstream-503", "route": "drawn"}
FAILED_OVER = [
    *requests(ONE), *requests(TWO, EACH // 2), *requests(TWO, EACH // 2, **FAILED),
    *requests(ONE, EACH // 2, route="failover"),
]  # fmt: skip
"""Version 2 fails half of its requests, which version 1 then answers."""


def test_who_fails_over_fails_and_its_share_of_traffic_is_its_own() -> None:
    found = shown(FAILED_OVER)
    (judged,) = found.judged
    assert judged.verdict.primary is not None and judged.verdict.primary.value == pytest.approx(0.5)
    assert judged.verdict.kind.value == "worse"
    assert found.ratio.p is not None and found.ratio.p > 0.9


def test_a_request_that_was_failed_over_is_once_in_the_group_and_with_both_of_its_versions() -> None:
    found = shown(FAILED_OVER)
    assert found.n == 2 * EACH
    assert {side.version: (side.figures.n, side.figures.errors) for side in found.sides} == {
        ONE: (EACH + EACH // 2, 0), TWO: (EACH, EACH // 2),
    }  # fmt: skip
    told = {one.asset.version: (one.requests, one.errors) for one in live_figures(GROUP, stored(FAILED_OVER))}
    assert told == {1: (EACH + EACH // 2, 0), 2: (EACH, EACH // 2)}


def test_what_is_charged_is_in_the_version_s_rows_by_weight_and_in_no_other_route_s() -> None:
    sums = summed(stored(FAILED_OVER))
    assert strata(sums, TWO, 2)[2].n == EACH and strata(sums, ONE, 2)[2].n == EACH
    assert strata(sums, TWO, 2, "shadow") == {}
    assert sum(part.n for part in sums.values()) == 2 * EACH + EACH // 2, "reading changes no sums"


def test_cached_answers_are_in_the_split_alone_and_ruled_ones_in_none() -> None:
    cached = requests(TWO, EACH - 20, route=CACHED, latency_ms=0.1)
    ruled = requests(TWO, 5 * EACH, route="rule")
    long_ago = requests(TWO, 3 * EACH, route="cache")  # of rules and weights alike
    found = shown([*requests(ONE), *requests(TWO, 20), *cached, *ruled, *long_ago])
    assert found.ratio.p is not None and found.ratio.p > 0.9
    assert strata(summed(stored(cached)), TWO, 2) == {}
    assert shown([*requests(ONE), *requests(TWO, 20)]).ratio.is_mismatch
