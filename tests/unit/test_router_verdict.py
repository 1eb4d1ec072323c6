"""How often a verdict is wrong when somebody looks all the time, and how soon it is right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.router.comparison.aggregates import SLICES, Aggregate
from services.router.comparison.buckets import counted, score_buckets
from services.router.comparison.differences import OUT_OF_SIGHT, Difference, difference, half_width
from services.router.comparison.estimates import METRICS, metric_of
from services.router.comparison.ratio import Ratio
from services.router.comparison.verdict import Guard, Kind, Objective, Standing, judge

FINE = Ratio(0.5, 0.1, 1, 1.0, (1,))
ACCURACY, ERRORS, LATENCY = METRICS["accuracy"], METRICS["error_rate"], METRICS["latency"]
OBJECTIVE = Objective(ACCURACY, (Guard(ERRORS, 0.02), Guard(LATENCY, math.log(1.1))))
PEEKS = np.unique(np.geomspace(100, 20_000, 60).astype(int))


def traffic(
    random: np.random.Generator, n: int, accuracy: float, errors: float = 0.01, slower: float = 1.0
) -> Aggregate:
    found = Aggregate(n=n)
    slices = random.integers(0, SLICES, n)
    found.measure("accuracy", (random.random(n) < accuracy).astype(float), slices)
    found.measure("error_rate", (random.random(n) < errors).astype(float), slices)
    found.measure("latency", random.normal(math.log(20 * slower), 0.4, n), slices)
    return found


def peeked(random: np.random.Generator, effect: float, errors: float = 0.01) -> tuple[Kind, int]:
    """Look at every peek; the first verdict that is not open, and the rows an arm that it took."""
    champion, challenger = Aggregate(), Aggregate()
    before = 0
    for n in PEEKS.tolist():
        champion.add(traffic(random, n - before, 0.8))
        challenger.add(traffic(random, n - before, 0.8 + effect, errors))
        before = n
        kind = judge({1: champion}, {1: challenger}, OBJECTIVE, FINE).kind
        if kind is not Kind.OPEN:
            return kind, n
    return Kind.OPEN, before


def test_the_false_promotion_rate_under_no_difference() -> None:
    random = np.random.default_rng(20_26)
    kinds = [peeked(random, 0.0)[0] for _ in range(200)]
    promoted, worse = kinds.count(Kind.BETTER), kinds.count(Kind.WORSE)
    print(
        f"no difference, {len(PEEKS)} looks at up to 20,000 rows an arm: "
        f"{promoted} of 200 promoted ({promoted / 2:.1f} %, at most 2.5 % promised), {worse} of 200 taken back"
    )
    assert promoted <= 5 + 4  # 2.5 % of 200 and two standard deviations
    assert worse <= 10 + 6


def test_a_look_after_every_single_row() -> None:
    """Bernoulli rows of two arms in turn; the interval misses 0 at any of 5,000 looks in at most 5 % of runs."""
    random = np.random.default_rng(11)
    runs, looks, missed, naive = 1_000, 5_000, {}, 0
    n = np.arange(1, looks + 1)
    widths = np.array([half_width(1.0, 2 * count, 0.05) for count in n])
    for rate in (0.5, 0.05, 0.005):
        arms = [np.cumsum(random.random((runs, looks)) < rate, axis=1) for _ in range(2)]
        smoothed = [(arm + 1) / (n + 2) for arm in arms]
        error = np.sqrt(sum(one * (1 - one) for one in smoothed) / n)
        gap = np.abs(arms[1] - arms[0]) / n
        looked = n >= 100
        missed[rate] = float((gap > widths * error)[:, looked].any(axis=1).mean())
        naive = max(naive, float((gap > 1.96 * error)[:, looked].any(axis=1).mean()))
    print(f"missed the truth at any of {looks} looks: {missed} (5 % promised); plain 95 % intervals: {naive:.0%}")
    assert max(missed.values()) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    assert naive > 0.3


def test_units_that_come_again_do_not_make_it_sure_too_soon() -> None:
    """Each unit sends 25 requests and is mostly right or mostly wrong, whichever version it meets."""
    random = np.random.default_rng(21)
    missed = naive = 0
    for _ in range(100):
        arms = [Aggregate(), Aggregate()]
        is_missed = is_naive = False
        for _ in range(25):
            for arm in arms:
                units = random.integers(0, SLICES, 20)
                rates = random.beta(0.8, 0.8, 20)
                right = random.random((20, 25)) < rates[:, None]
                arm.measure("accuracy", right.ravel().astype(float), np.repeat(units, 25))
            found = difference(ACCURACY, {1: arms[0]}, {1: arms[1]})
            assert found is not None
            low, high = found.interval(0.05) or (-1.0, 1.0)
            is_missed |= not low <= 0 <= high
            plain = half_width(math.sqrt(0.5 / arms[0].moments["accuracy"].n), found.n, 0.05)
            is_naive |= abs(found.value) > plain
        missed += is_missed
        naive += is_naive
    print(f"sticky units, 25 looks: missed in {missed} of 100 runs (5 promised); taken for independent rows: {naive}")
    assert missed <= 5 + 4 and naive > 20


def test_the_area_under_the_curve_may_be_looked_at_too() -> None:
    random = np.random.default_rng(22)
    missed = 0
    for _ in range(100):
        arms, is_missed = [Aggregate(), Aggregate()], False
        for _ in range(15):
            for arm in arms:
                truth = random.random(150) < 0.3
                scores = 1 / (1 + np.exp(-(random.normal(size=150) + truth)))
                part = {
                    "positive": counted(score_buckets(scores[truth])),
                    "negative": counted(score_buckets(scores[~truth])),
                }
                arm.add(Aggregate(histograms=part))
            found = difference(METRICS["auc"], {1: arms[0]}, {1: arms[1]})
            assert found is not None
            low, high = found.interval(0.05) or (-1.0, 1.0)
            is_missed |= not low <= 0 <= high
        missed += is_missed
    print(f"AUC of two equal models, 15 looks: the interval missed 0 in {missed} of 100 runs (5 promised)")
    assert missed <= 9


def test_a_real_difference_is_found() -> None:
    random = np.random.default_rng(12)
    found = [peeked(random, 0.05) for _ in range(60)]
    promoted = [n for kind, n in found if kind is Kind.BETTER]
    print(f"accuracy 80 % against 85 %: {len(promoted)} of 60 promoted, at {np.median(promoted):,.0f} rows an arm")
    assert len(promoted) >= 57
    assert all(kind is not Kind.WORSE for kind, _ in found)
    broken = [peeked(random, 0.05, errors=0.2) for _ in range(20)]
    assert all(kind is Kind.WORSE for kind, _ in broken)
    print(f"errors 1 % against 20 %: taken back at {np.median([n for _, n in broken]):,.0f} rows an arm (median)")


def test_the_rows_that_are_promised_to_settle_it_do() -> None:
    random = np.random.default_rng(13)
    champion, challenger = traffic(random, 600, 0.8), traffic(random, 600, 0.86)
    objective = Objective(ACCURACY)
    waiting = judge({1: champion}, {1: challenger}, objective, FINE)
    assert waiting.kind is Kind.OPEN and waiting.more_rows and waiting.primary
    assert "more rows would settle it" in waiting.sentence
    grown = Difference(
        ACCURACY,
        waiting.primary.value,
        waiting.primary.error * math.sqrt(1_200 / (1_200 + waiting.more_rows)),
        600 + waiting.more_rows // 2 + 1,
        600 + waiting.more_rows // 2 + 1,
        0,
    )
    assert grown.gains(0.05)[0] > 0
    same = Difference(ACCURACY, 0.0, 0.01, 500, 500, 0)
    assert same.rows_to(0.0, 0.05) == OUT_OF_SIGHT


def test_mornings_are_not_compared_with_evenings() -> None:
    """At 10 % in the morning (accuracy 0.9) and 90 % in the evening (0.6) two equal versions seem 0.24 apart."""
    random = np.random.default_rng(14)
    champion = {1: traffic(random, 9_000, 0.9), 2: traffic(random, 1_000, 0.6)}
    challenger = {1: traffic(random, 1_000, 0.9), 2: traffic(random, 9_000, 0.6)}
    found = difference(ACCURACY, champion, challenger)
    assert found is not None and abs(found.value) < 0.03
    low, high = found.interval(0.05) or (1.0, 1.0)
    assert low < 0 < high
    pooled = difference(ACCURACY, {0: _all(champion)}, {0: _all(challenger)})
    assert pooled is not None and pooled.value < -0.2


def test_revisions_with_few_rows_are_left_out_and_said_so() -> None:
    random = np.random.default_rng(15)
    champion = {1: traffic(random, 500, 0.8), 2: traffic(random, 500, 0.8)}
    challenger = {1: traffic(random, 500, 0.8), 2: traffic(random, 29, 0.8), 3: traffic(random, 10, 0.8)}
    found = difference(ACCURACY, champion, challenger)
    assert found is not None and (found.n, found.left_out) == (1_000, 539)
    assert difference(ACCURACY, {}, challenger) is None
    assert judge(champion, {}, OBJECTIVE, FINE).sentence.startswith("Nothing to compare yet")


def test_a_guard_that_does_not_hold_bars_the_better_version() -> None:
    random = np.random.default_rng(16)
    champion, better = traffic(random, 5_000, 0.7), traffic(random, 5_000, 0.8, slower=1.3)
    verdict = judge({1: champion}, {1: better}, OBJECTIVE, FINE)
    assert verdict.kind is Kind.WORSE and "latency" in verdict.sentence and "%" in verdict.sentence
    assert [held.standing for held in verdict.guards] == [Standing.HELD, Standing.VIOLATED]
    tight = Objective(ACCURACY, (Guard(ERRORS, 0.0001),))
    undecided = judge({1: champion}, {1: better}, tight, FINE)
    assert undecided.kind is Kind.OPEN and undecided.guards[0].standing is Standing.OPEN
    unlabelled = Objective(ACCURACY, (Guard(METRICS["log_loss"], 0.1),))
    assert "log_loss is not known" in judge({1: champion}, {1: better}, unlabelled, FINE).sentence


def test_a_mismatch_is_said_before_anything_else() -> None:
    random = np.random.default_rng(17)
    broken = Ratio(1e-7, 30.0, 1, 1.0, (1,))
    verdict = judge({1: traffic(random, 5_000, 0.7)}, {1: traffic(random, 5_000, 0.8)}, OBJECTIVE, broken)
    assert verdict.kind is Kind.MISMATCH and "p = 1e-07" in verdict.sentence


def test_not_worse_is_enough_where_that_is_the_goal() -> None:
    random = np.random.default_rng(18)
    champion, same = traffic(random, 60_000, 0.8), traffic(random, 60_000, 0.8)
    assert judge({1: champion}, {1: same}, Objective(ACCURACY, goal="not-worse"), FINE).kind is Kind.BETTER
    assert judge({1: champion}, {1: same}, Objective(ACCURACY), FINE).kind is Kind.OPEN


def test_metrics_by_name() -> None:
    revenue = metric_of("metric:revenue")
    assert revenue is not None and revenue.sign == 1
    complaints = metric_of("metric:complaints", "lower")
    assert complaints is not None and complaints.sign == -1
    assert metric_of("nonsense") is None and metric_of("metric:") is None
    assert METRICS["latency"].relative


def test_the_width_is_the_papers() -> None:
    """Theorem 2.2 written out with its own letters, and how it compares with a fixed-size interval."""
    t, alpha, sigma = 5_000.0, 0.05, 1.0
    rho = math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / t)
    paper = sigma * math.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / alpha))
    assert half_width(sigma / math.sqrt(t), t, alpha) == pytest.approx(paper)
    assert half_width(1.0, 5_000, 0.05) / 1.96 == pytest.approx(1.5, abs=0.1)


def _all(strata: dict[int, Aggregate]) -> Aggregate:
    whole = Aggregate()
    for part in strata.values():
        whole.add(part)
    return whole
