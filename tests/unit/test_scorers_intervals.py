"""A 95 % interval holds the true figure in 95 of 100 samples: simulated, seeded, on populations whose truth is known.

With 1,500 samples the count itself has a standard error of 0.6 points, so 93.3 to 96.7 % is what chance explains;
intervals that are conservative by design (discrete, Bonferroni, distribution-free) may hold more often.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from services.evaluator.domain import Measure, Options, ScoredRows, Timings
from services.evaluator.scorers import SCORERS
from services.evaluator.scorers.testing import classified, regressed

SAMPLES = 1500
LOW, HIGH = 0.933, 0.967
Draw = Callable[[np.random.Generator], ScoredRows]


def held(name: str, measure: str, truth: float, draw: Draw, samples: int = SAMPLES) -> float:
    """The share of samples whose interval of `measure` holds `truth`."""
    random, options, hits = np.random.default_rng(20_260), Options(), 0
    for _ in range(samples):
        found = {finding.name: finding for finding in SCORERS[name].score(draw(random), options)}[measure]
        assert isinstance(found, Measure)
        hits += found.low <= truth <= found.high
    return hits / samples


def binormal(distance: float, positives: int, negatives: int) -> Draw:
    """Scores of N(distance, 1) and N(0, 1), squeezed into [0, 1]; the AUC is Φ(distance/√2)."""

    def draw(random: np.random.Generator) -> ScoredRows:
        scores = np.concatenate([random.normal(distance, 1, positives), random.normal(0, 1, negatives)])
        return classified([1] * positives + [0] * negatives, 1 / (1 + np.exp(-scores)))

    return draw


def cells(probabilities: list[float], n: int, groups: tuple[str, ...] = ("1",), shift: float = 0.0) -> Draw:
    """Rows by cell (true, predicted) = 00, 01, 10, 11; from group to group `shift` moves from P(00) to P(01)."""

    def draw(random: np.random.Generator) -> ScoredRows:
        truth, predicted, sensitive = [], [], []
        for index, group in enumerate(groups):
            moved = np.array(probabilities) + np.array([-shift, shift, 0, 0]) * index
            cell = random.choice(4, n, p=moved)
            truth += (cell // 2).tolist()
            predicted += (0.1 + 0.8 * (cell % 2)).tolist()
            sensitive += [group] * n
        return classified(truth, predicted, sensitive={"SEX": sensitive})

    return draw


@pytest.mark.parametrize(("share", "n"), [(0.8, 200), (0.99, 150), (0.5, 40)])
def test_accuracy(share: float, n: int) -> None:
    half = (1 - share) / 2
    assert (
        LOW - 0.01
        <= held("accuracy_score", "accuracy_score", share, cells([share / 2, half, half, share / 2], n))
        <= 0.985
    )


@pytest.mark.parametrize(("distance", "positives", "negatives"), [(1.0, 60, 60), (1.7, 40, 160), (0.0, 50, 50)])
def test_auc(distance: float, positives: int, negatives: int) -> None:
    truth = float(stats.norm.cdf(distance / np.sqrt(2)))
    assert LOW <= held("roc_auc", "roc_auc", truth, binormal(distance, positives, negatives)) <= HIGH


def test_auc_near_one_where_many_samples_are_wholly_apart() -> None:
    truth = float(stats.norm.cdf(3.6 / np.sqrt(2)))
    assert held("roc_auc", "roc_auc", truth, binormal(3.6, 20, 20)) >= LOW


def test_auc_of_three_classes() -> None:
    def draw(random: np.random.Generator, n: int = 60) -> ScoredRows:
        truth = np.repeat([0, 1, 2], n)
        raw = np.exp(random.normal(0, 1, (3 * n, 3)) + np.eye(3)[truth])
        return classified(truth, raw / raw.sum(axis=1, keepdims=True))

    big = SCORERS["roc_auc"].score(draw(np.random.default_rng(5), 60_000), Options())[0]
    assert isinstance(big, Measure)  # 180,000 rows: its own error is a thirtieth of the small samples'
    assert LOW <= held("roc_auc", "roc_auc", big.value, draw, 600) <= 0.975


@pytest.mark.parametrize(("n", "table"), [(150, [0.4, 0.1, 0.1, 0.4]), (300, [0.90, 0.03, 0.03, 0.04])])
def test_f1_of_two_classes(n: int, table: list[float]) -> None:
    truth = 2 * table[3] / (2 * table[3] + table[1] + table[2])
    assert LOW <= held("f1_score", "f1_score", truth, cells(table, n)) <= 0.975


def test_macro_f1_of_three_classes() -> None:
    joint = np.array([[0.25, 0.05, 0.03], [0.06, 0.20, 0.06], [0.02, 0.08, 0.25]])
    truth = float(np.mean([2 * joint[c, c] / (joint[c].sum() + joint[:, c].sum()) for c in range(3)]))

    def draw(random: np.random.Generator) -> ScoredRows:
        cell = random.choice(9, 300, p=joint.ravel())
        return classified(cell // 3, np.eye(3)[cell % 3] * 0.7 + 0.1)

    assert LOW - 0.01 <= held("f1_score", "f1_score", truth, draw) <= HIGH


def test_log_loss() -> None:
    def entropy(p: float) -> float:
        return float(-p * np.log(p) - (1 - p) * np.log(1 - p))

    truth = quad(entropy, 0.02, 0.98)[0] / 0.96

    def draw(random: np.random.Generator) -> ScoredRows:
        p = random.uniform(0.02, 0.98, 300)
        return classified(random.random(300) < p, p)

    assert LOW <= held("log_loss", "log_loss", truth, draw) <= HIGH


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_demographic_parity_difference_of_two_groups(shift: float) -> None:
    draw = cells([0.45, 0.1, 0.1, 0.35], 200, ("1", "2"), shift)
    assert LOW <= held("fairness", "fairness.SEX.demographic_parity_difference", shift, draw, 800) <= 0.98


def test_demographic_parity_difference_of_four_groups_is_conservative() -> None:
    draw = cells([0.45, 0.1, 0.1, 0.35], 200, ("1", "2", "3", "4"), 0.05)
    assert held("fairness", "fairness.SEX.demographic_parity_difference", 0.15, draw, 400) >= 0.95


def test_equalized_odds_difference() -> None:
    # The false positive rate moves from 0.10/0.55 to 0.20/0.55, the true positive rate not at all.
    draw = cells([0.45, 0.1, 0.1, 0.35], 300, ("1", "2"), 0.1)
    assert held("fairness", "fairness.SEX.equalized_odds_difference", 0.1 / 0.55, draw, 600) >= LOW


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("root_mean_squared_error", 0.5),
        ("mean_absolute_error", 0.5 * np.sqrt(2 / np.pi)),
        ("r2_score", 1 - 0.25 / 1.25),
    ],
)
def test_regression(name: str, truth: float) -> None:
    def draw(random: np.random.Generator) -> ScoredRows:
        predicted = random.normal(0, 1, 300)
        return regressed(predicted + random.normal(0, 0.5, 300), predicted)

    assert LOW - 0.01 <= held(name, name, truth, draw) <= HIGH


@pytest.mark.parametrize(("name", "share"), [("p50", 0.5), ("p99", 0.99)])
def test_latency(name: str, share: float) -> None:
    def draw(random: np.random.Generator) -> ScoredRows:
        rows = classified([0, 1], [0.2, 0.8])
        times = Timings(random.exponential(1.0, 600), rows.timings.batch_ms, rows.timings.batch_rows)
        return ScoredRows("classification", rows.truth, rows.outputs, 2, times, rows.classes, 1)

    assert LOW <= held("latency_ms", f"latency_ms.{name}", float(-np.log(1 - share)), draw, 800) <= 0.99
