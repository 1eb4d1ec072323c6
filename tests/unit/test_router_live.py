"""A version's own figures: an interval where enough rows speak, within what the metric can be, and not too many."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest

from services.router.comparison.aggregates import Aggregate, Outcome, Said, aggregate, judged, merge
from services.router.comparison.differences import MIN_ARM
from services.router.comparison.estimates import METRICS, area_error
from services.router.comparison.live import ALPHA, MOST_BUSINESS, measures, own
from services.router.domain import Buckets, Challenger, Group, Version
from services.router.handlers.measuring import MOST_VERSIONS, live_figures

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64


def outcome(number: int, version: int = 1, score: float | None = 0.5, status: int = 200) -> Outcome:
    return Outcome(
        request_id=UUID(int=number), at=NOON, revision=1, asset="mm:model/x", version=version, digest=DIGEST,
        unit=f"unit-{number}", status=status, error_code=None, latency_ms=10.0 + number % 5, score=score,
    )  # fmt: skip


def of_rows(rows: list[Outcome], said: list[Said] | None = None) -> Aggregate:
    return merge(*aggregate(rows).values(), *judged(said or []).values())


def test_a_metric_is_said_from_the_hundredth_row_on() -> None:
    assert measures(of_rows([outcome(n) for n in range(MIN_ARM - 1)])) == {}
    found = measures(of_rows([outcome(n) for n in range(MIN_ARM)]))
    assert set(found) == {"error_rate", "latency", "score"}
    assert (found["error_rate"].value, found["error_rate"].low) == (0.0, 0.0)
    assert 0 < found["error_rate"].high < 0.2, "no failure yet is not certainty of none"
    geometric = math.exp(float(np.mean([math.log(10.0 + n % 5) for n in range(MIN_ARM)])))
    assert found["latency"].value == pytest.approx(geometric) and found["latency"].unit == "ms"
    assert found["latency"].low < geometric < found["latency"].high


def test_shares_stay_between_nothing_and_everything_and_buckets_widen_the_area() -> None:
    rows = [outcome(n, score=(n % 97) / 97) for n in range(200)]
    said = [Said(one, str(int(one.score or 0 >= 0.5)), "label", None, str(n % 2)) for n, one in enumerate(rows)]
    whole = of_rows(rows, said)
    found = measures(whole)
    for name in ("accuracy", "auc", "brier", "error_rate"):
        assert 0 <= found[name].low <= found[name].value <= found[name].high <= 1, name
    area = own(METRICS["auc"], whole, ALPHA)
    off = area_error(whole.histograms["positive"], whole.histograms["negative"])
    assert area is not None and off > 0
    assert found["auc"].low == pytest.approx(area.low - off) and found["auc"].high == pytest.approx(area.high + off)
    assert found["log_loss"].low >= 0 and not found["log_loss"].higher_is_better and found["accuracy"].higher_is_better


def test_of_many_business_metrics_those_with_most_rows_are_said() -> None:
    rows = [outcome(n) for n in range(200)]
    said = [
        Said(one, None, f"metric-{number:02}", float(n), None)
        for number in range(MOST_BUSINESS + 5)
        for n, one in enumerate(rows[: 110 + number])
    ]
    found = {name for name in measures(of_rows(rows, said)) if name.startswith("metric:")}
    assert found == {f"metric:metric-{number:02}" for number in range(5, MOST_BUSINESS + 5)}


def test_a_number_whose_square_is_infinite_spoils_no_sum() -> None:
    rows = [outcome(n, score=1e300 if n == 7 else 0.5) for n in range(200)]
    said = [Said(one, None, "revenue", 1e200 if n == 9 else 7.5, None) for n, one in enumerate(rows)]
    kept = Aggregate.loaded(of_rows(rows, said).dumped())
    found = measures(merge(kept, kept))
    assert (found["score"].value, found["score"].n) == (0.5, 398)
    assert (found["metric:revenue"].value, found["metric:revenue"].n) == (7.5, 398)


def test_whoever_serves_is_told_of_before_whoever_served() -> None:
    one, two = Version("mm:model/x", 1, DIGEST), Version("mm:model/x", 2, DIGEST)
    group = Group("live", "default", 9, one, (Challenger(two, Buckets(((0, 1_000),))),))
    rows = [outcome(1, version=1), outcome(2, version=2)]
    rows += [outcome(10 + n, version=3 + n % MOST_VERSIONS) for n in range(MOST_VERSIONS * 3)]
    stored = [
        {"revision": key.revision, "asset": key.asset, "version": key.version, "digest": key.digest,
         "route": key.route, "body": part.dumped()}
        for key, part in aggregate(rows).items()
    ]  # fmt: skip
    found = live_figures(group, stored)
    assert len(found) == MOST_VERSIONS
    assert [(figures.asset.version, figures.role) for figures in found[:2]] == [(1, "champion"), (2, "challenger")]
    assert {figures.role for figures in found[2:]} == {"former"}
