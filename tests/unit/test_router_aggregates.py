"""Aggregates that add up, figures that agree with those of every single row, and ratios that were promised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from services.router.comparison.aggregates import (
    BY_WEIGHT,
    SLICES,
    Aggregate,
    Outcome,
    Said,
    aggregate,
    judged,
    merge,
    slice_of,
)
from services.router.comparison.buckets import latency_buckets, latency_of, quantile, score_buckets, score_of
from services.router.comparison.estimates import area, area_error, design_effect
from services.router.comparison.figures import figures
from services.router.comparison.ratio import sample_ratio
from services.router.comparison.spans import cover, floor, kept

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
URN = "mm:model/x"


def outcome(number: int, **more: Any) -> Outcome:
    said: dict[str, Any] = {
        "request_id": UUID(int=number),
        "at": NOON + timedelta(seconds=number % 50),
        "revision": 1,
        "asset": URN,
        "version": 1,
        "digest": "sha256:0",
        "unit": f"u{number}",
        "status": 200,
        "error_code": None,
        "latency_ms": 10.0,
    }
    return Outcome(**{**said, **more})


def only(found: dict[Any, Aggregate]) -> Aggregate:
    (aggregated,) = found.values()
    return aggregated


rows_of_traffic = st.lists(
    st.builds(
        outcome,
        st.integers(0, 10_000),
        status=st.sampled_from([200, 200, 200, 422, 502]),
        latency_ms=st.floats(0.001, 1e6),
        score=st.none() | st.floats(0, 1),
        tokens_in=st.none() | st.integers(0, 100_000),
    ),
    min_size=1,
    max_size=60,
)


@given(rows_of_traffic, st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_parts_add_up_to_the_whole_in_any_order_and_survive_storage(rows: list[Outcome], cut: int) -> None:
    whole = only(aggregate(rows))
    first, second = merge(*aggregate(rows[:cut]).values()), merge(*aggregate(rows[cut:]).values())
    for both in (merge(first, second), merge(second, first)):
        stored = Aggregate.loaded(both.dumped())
        assert (stored.n, stored.errors, stored.histograms) == (whole.n, whole.errors, whole.histograms)
        for metric, moments in whole.moments.items():
            assert stored.moments[metric] == pytest.approx(moments)
            assert stored.slices[metric].total == pytest.approx(whole.slices[metric].total)


def test_minutes_revisions_versions_and_routes_are_kept_apart() -> None:
    rows = [outcome(0), outcome(1), outcome(60, at=NOON + timedelta(minutes=1)), outcome(2, revision=2)]
    rows += [outcome(3, version=2), outcome(4, route="shadow"), outcome(5, asset=None, version=None, digest=None)]
    found = aggregate(rows)
    assert sorted(part.n for part in found.values()) == [1, 1, 1, 1, 1, 2]
    assert {key.start for key in found} == {NOON, NOON + timedelta(minutes=1)}


@given(st.lists(st.floats(0.001, 3.6e6), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_one_percent_of_the_exact_one(latencies: list[float], share: float) -> None:
    found = quantile(
        dict(zip(*np.unique(latency_buckets(np.array(latencies)), return_counts=True), strict=True)), share
    )
    exact = sorted(latencies)[int(share * (len(latencies) - 1))]
    assert found == pytest.approx(exact, rel=0.0101)


@given(st.lists(st.floats(-1e9, 1e9) | st.floats(0, 1), min_size=2, max_size=50))
def test_buckets_of_scores_keep_their_order_and_tell_where_they_are(scores: list[float]) -> None:
    ordered = np.sort(np.array(scores))
    buckets = score_buckets(ordered)
    assert (np.diff(buckets) >= 0).all()
    for score, bucket in zip(ordered, buckets.tolist(), strict=True):
        assert score_of(bucket) == pytest.approx(score, rel=0.02, abs=0.0051)


def test_latency_buckets_hold_what_cannot_be() -> None:
    assert latency_of(int(latency_buckets(np.array([0.0]))[0])) == pytest.approx(0.001, rel=0.011)


def labelled(count: int, seed: int, *, informative: float = 1.0) -> tuple[list[Said], Any, Any]:
    random = np.random.default_rng(seed)
    truth = random.random(count) < 0.3
    scores = 1 / (1 + np.exp(-(informative * (truth * 2 - 1) + random.normal(size=count) - 0.5)))
    words = [
        Said(outcome(number, score=float(score)), str(int(score >= 0.5)), "label", None, str(int(true)))
        for number, (score, true) in enumerate(zip(scores, truth, strict=True))
    ]
    return words, truth, scores


def test_figures_of_labels_agree_with_scikit_learn_and_state_their_error() -> None:
    words, truth, scores = labelled(5_000, 1)
    found = figures(merge(only(judged(words)), only(aggregate([word.outcome for word in words]))))
    assert found.labelled == 5_000
    assert found.accuracy == pytest.approx(np.mean((scores >= 0.5) == truth))
    assert found.log_loss == pytest.approx(log_loss(truth, scores))
    assert found.brier == pytest.approx(brier_score_loss(truth, scores))
    assert found.auc is not None and found.auc_error is not None
    exact = roc_auc_score(truth, scores)
    assert abs(found.auc - exact) <= found.auc_error < 0.005
    print(f"AUC from buckets {found.auc:.6f}, exact {exact:.6f}, stated error {found.auc_error:.6f}")
    assert sum(count for _, _, count in found.confusion) == 5_000
    assert found.calibration_error is not None and 0 < found.calibration_error < 0.3
    assert sum(one.n for one in found.scores) == 5_000


def test_the_variance_of_auc_is_delongs() -> None:
    """Against the plain definition by placements of every pair."""
    words, truth, scores = labelled(300, 2)
    part = only(judged(words))
    found = area(part.histograms["positive"], part.histograms["negative"])
    assert found is not None
    positive, negative = scores[truth], scores[~truth]
    wins = (positive[:, None] > negative[None, :]).astype(float)
    expected = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    assert found.variance == pytest.approx(expected, rel=0.05)
    assert area_error({1: 1}, {2: 1}) == 0 and area_error({1: 1}, {1: 1}) == 0.5


def test_a_correction_takes_back_what_was_said_before() -> None:
    words, _, _ = labelled(200, 3)
    wrong = words[0]._replace(label="0" if words[0].label == "1" else "1")
    corrected = merge(*judged([wrong, *words[1:]]).values(), *judged([wrong], -1).values(), *judged(words[:1]).values())
    right = only(judged(words))
    assert corrected.histograms == right.histograms
    assert corrected.confusion == right.confusion
    for metric, moments in right.moments.items():
        assert corrected.moments[metric] == pytest.approx(moments)


def test_labels_of_failed_rows_and_texts_that_name_no_class_say_nothing_wrong() -> None:
    failed = Said(outcome(1, status=502), None, "label", None, "1")
    assert figures(merge(*judged([failed]).values())).labelled == 0
    free = Said(outcome(2), "a long answer, " * 20, "label", None, "another")
    found = figures(merge(*judged([free]).values()))
    assert (found.labelled, found.accuracy, found.confusion) == (1, 0.0, [("(other)", "another", 1)])
    revenue = Said(outcome(3), None, "metric", 12.5, None)
    assert figures(merge(*judged([revenue]).values())).metrics == {"metric": (1, 12.5)}


def test_figures_without_labels_or_answers_are_null_and_not_zero() -> None:
    failed = figures(only(aggregate([outcome(1, status=502, score=None)])))
    assert (failed.n, failed.errors, failed.error_rate, failed.labelled) == (1, 1, 1.0, 0)
    assert (failed.accuracy, failed.auc, failed.auc_error, failed.log_loss, failed.calibration_error) == (None,) * 5
    assert (failed.latency_ms_p50, failed.mean_score, failed.cost, failed.tokens_in, failed.scores) == (None,) * 4 + (
        [],
    )
    nothing = figures(Aggregate())
    assert (nothing.n, nothing.error_rate, nothing.latency_ms_p99) == (0, None, None)


def test_too_many_classes_are_set_aside_and_counted() -> None:
    many = Aggregate(confusion={(f"a{number}", "b"): number + 1 for number in range(3_000)})
    total = sum(many.confusion.values())
    assert len(many.bounded().confusion) == 2_500
    assert sum(many.confusion.values()) == total


def counts_of(units: Any, arms: Any) -> dict[tuple[str, int], tuple[float, ...]]:
    found = {(URN, arm): [0.0] * SLICES for arm in (1, 2)}
    for unit, arm in zip(units, arms, strict=True):
        found[(URN, int(arm))][slice_of(f"u{unit}")] += 1
    return {arm: tuple(counts) for arm, counts in found.items()}


EVEN = {(URN, 1): 5_000, (URN, 2): 5_000}


def test_a_promised_split_is_no_mismatch_and_a_broken_one_is() -> None:
    random = np.random.default_rng(4)
    false_alarms = 0
    for _ in range(300):
        units = random.integers(0, 1 << 40, 2_000)
        false_alarms += sample_ratio({1: counts_of(units, random.integers(1, 3, 2_000))}, {1: EVEN}).is_mismatch
    assert false_alarms <= 2
    units = random.integers(0, 1 << 40, 20_000)
    broken = sample_ratio({1: counts_of(units, 1 + (random.random(20_000) < 0.47))}, {1: EVEN})
    assert broken.is_mismatch and broken.p is not None
    print(f"{false_alarms} of 300 honest splits alarmed; 47 % instead of 50 % of 20,000 rows: p = {broken.p:.1g}")


def test_units_that_come_again_and_again_raise_no_false_alarm() -> None:
    """Each of 400 sticky units sends about 50 requests: a plain chi-square would alarm at every second split."""
    random = np.random.default_rng(5)
    alarms = naive = 0
    for _ in range(60):
        sizes = random.geometric(1 / 50, 400)
        units = np.repeat(random.integers(0, 1 << 40, 400), sizes)
        arms = np.repeat(random.integers(1, 3, 400), sizes)
        found = sample_ratio({1: counts_of(units, arms)}, {1: EVEN})
        alarms += found.is_mismatch
        naive += found.chi_square > 10.83
    print(f"sticky units: {alarms} of 60 alarmed, {naive} by a plain chi-square")
    assert alarms <= 1 and naive > 10


def test_a_ramp_is_judged_by_the_weights_of_its_time() -> None:
    random = np.random.default_rng(6)
    first = counts_of(random.integers(0, 1 << 40, 3_000), 1 + (random.random(3_000) < 0.1))
    then = counts_of(random.integers(0, 1 << 40, 3_000), 1 + (random.random(3_000) < 0.5))
    ninety = {(URN, 1): 9_000, (URN, 2): 1_000}
    assert not sample_ratio({1: first, 2: then}, {1: ninety, 2: EVEN}).is_mismatch
    assert sample_ratio({1: first, 2: then}, {1: EVEN, 2: EVEN}).is_mismatch
    too_few = sample_ratio({1: counts_of([1], [1])}, {1: EVEN})
    assert too_few.p is None and not too_few.is_mismatch
    alone = sample_ratio({1: first}, {1: {(URN, 1): 10_000}})
    assert alone.p is None


def test_alike_requests_of_a_unit_widen_what_is_uncertain() -> None:
    random = np.random.default_rng(7)
    fresh = only(aggregate([outcome(n, status=500 if random.random() < 0.2 else 200) for n in range(3_000)]))
    assert design_effect("error_rate", fresh) < 1.8
    bad = set(random.choice(100, 20, replace=False).tolist())
    sticky = [outcome(n, unit=f"u{n % 100}", status=500 if n % 100 in bad else 200) for n in range(3_000)]
    assert design_effect("error_rate", only(aggregate(sticky))) > 10


def test_by_weight_is_what_rows_are_unless_said() -> None:
    assert outcome(1).route == BY_WEIGHT


moments_in_time = st.integers(0, 400 * 1440).map(lambda minutes: NOON - timedelta(minutes=minutes))


@given(moments_in_time, moments_in_time)
def test_any_span_is_covered_exactly_by_a_few_whole_grains(one: datetime, other: datetime) -> None:
    since, until = min(one, other), max(one, other)
    spans = cover(since, until)
    assert len(spans) <= 5
    at = since
    for grain, begins, ends in spans:
        assert begins == at and ends > begins
        assert floor(begins, grain) == begins and floor(ends, grain) == ends
        at = ends
    assert at == until
    pieces = sum((ends - begins) // timedelta(minutes=grain) for grain, begins, ends in spans)
    assert pieces <= 2 * 59 + 2 * 23 + (until - since).days + 1


def test_what_is_no_longer_kept_by_the_minute_is_read_by_the_hour_and_the_day() -> None:
    moment = NOON + timedelta(minutes=17, seconds=5)
    assert kept(moment, NOON) == NOON + timedelta(minutes=17)
    assert kept(moment, NOON + timedelta(days=9)) == NOON
    assert kept(moment, NOON + timedelta(days=99)) == NOON - timedelta(hours=12)
