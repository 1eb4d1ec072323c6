"""Figures agree with scikit-learn, intervals with scipy, published examples and the definitions done by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from services.evaluator.domain import Insufficient, Measure, Options, ScoredRows
from services.evaluator.errors import TooManyGroups
from services.evaluator.scorers import SCORERS, intervals
from services.evaluator.scorers.roc_auc import _newcombe_5
from services.evaluator.scorers.testing import classified, some_binary, some_multiclass, some_regression


def measured(name: str, rows: ScoredRows, options: Options | None = None) -> dict[str, Measure]:
    findings = SCORERS[name].score(rows, options or Options())
    return {finding.name: finding for finding in findings if isinstance(finding, Measure)}


def only(name: str, rows: ScoredRows) -> Measure:
    return measured(name, rows)[name]


@pytest.mark.parametrize("seed", range(5))
def test_binary_figures_are_scikit_learns(seed: int) -> None:
    rows = some_binary(seed=seed)
    truth, scores = rows.labels, rows.outputs[:, 1]
    assert only("accuracy_score", rows).value == pytest.approx(metrics.accuracy_score(truth, rows.predicted))
    assert only("roc_auc", rows).value == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert only("f1_score", rows).value == pytest.approx(metrics.f1_score(truth, rows.predicted))
    assert only("log_loss", rows).value == pytest.approx(metrics.log_loss(truth, rows.outputs))


@pytest.mark.parametrize("seed", range(5))
def test_multiclass_figures_are_scikit_learns(seed: int) -> None:
    rows = some_multiclass(k=4, seed=seed)
    truth = rows.labels
    assert only("accuracy_score", rows).value == pytest.approx(metrics.accuracy_score(truth, rows.predicted))
    auc = metrics.roc_auc_score(truth, rows.outputs, multi_class="ovr", average="macro")
    assert only("roc_auc", rows).value == pytest.approx(auc)
    assert only("f1_score", rows).value == pytest.approx(metrics.f1_score(truth, rows.predicted, average="macro"))
    assert only("log_loss", rows).value == pytest.approx(metrics.log_loss(truth, rows.outputs))


def test_a_sure_and_wrong_row_costs_what_scikit_learn_says() -> None:
    rows = classified([0, 1, 1], [0.0, 1.0, 0.0])
    assert only("log_loss", rows).value == pytest.approx(metrics.log_loss([0, 1, 1], rows.outputs), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_regression_figures_are_scikit_learns(seed: int) -> None:
    rows = some_regression(seed=seed)
    truth, predicted = rows.truth, rows.outputs[:, 0]
    rmse = only("root_mean_squared_error", rows)
    assert rmse.value == pytest.approx(metrics.root_mean_squared_error(truth, predicted))
    assert only("mean_absolute_error", rows).value == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    assert only("r2_score", rows).value == pytest.approx(metrics.r2_score(truth, predicted))


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (1, 7), (80, 100), (17_200, 20_785)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert intervals.wilson(hits, n, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_newcombe_is_the_papers_example() -> None:
    # Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10.
    assert intervals.newcombe(56, 70, 48, 80, 0.95) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_student_mean_is_scipys() -> None:
    values = np.random.default_rng(0).exponential(1.0, 40)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert intervals.mean(values, 0.95) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantile_keeps_binomial_coverage_on_both_sides(share: float) -> None:
    n = 1000
    found = intervals.quantile(np.arange(1, n + 1, dtype=np.float64), share, 0.95)
    assert found is not None
    _, low, high = (int(rank) for rank in found)
    # P(the true quantile lies between the order statistics of ranks low and high) = P(low <= Binomial < high).
    covered = stats.binom.cdf(high - 1, n, share) - stats.binom.cdf(low - 1, n, share)
    assert 0.95 <= covered < 0.99


def test_quantile_says_how_many_values_it_needs() -> None:
    needed = intervals.rows_for_quantile(0.99, 0.95)
    assert intervals.quantile(np.zeros(needed), 0.99, 0.95) is not None
    assert intervals.quantile(np.zeros(needed - 1), 0.99, 0.95) is None


@pytest.mark.parametrize("seed", range(5))
def test_auc_variance_is_delongs_by_brute_force(seed: int) -> None:
    rows = some_binary(n=120, seed=seed)
    scores, positive = rows.outputs[:, 1], rows.labels == 1
    x, y = scores[positive], scores[~positive]
    wins = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    auc = wins.mean()
    variance = wins.mean(axis=1).var(ddof=1) / len(x) + wins.mean(axis=0).var(ddof=1) / len(y)
    logit = np.log(auc / (1 - auc))
    half = stats.norm.ppf(0.975) * np.sqrt(variance) / (auc * (1 - auc))
    measure = only("roc_auc", rows)
    ends = 1 / (1 + np.exp(-np.array([logit - half, logit + half])))
    assert (measure.value, measure.low, measure.high) == pytest.approx((auc, *ends))


@pytest.mark.parametrize(("auc", "m", "n"), [(1.0, 10, 30), (0.0, 20, 20), (1.0, 1, 1), (0.5, 50, 50)])
def test_newcombe_5_is_the_set_of_values_that_its_test_accepts(auc: float, m: int, n: int) -> None:
    grid = np.linspace(0, 1, 200_001)
    size = (m + n) / 2
    variance = grid * (1 - grid) * (1 + (size - 1) * ((1 - grid) / (2 - grid) + grid / (1 + grid))) / (m * n)
    accepted = grid[np.abs(auc - grid) <= stats.norm.ppf(0.975) * np.sqrt(variance) + 1e-12]
    assert _newcombe_5(auc, m, n, 0.95) == pytest.approx((accepted.min(), accepted.max()), abs=1e-5)


def test_f1_of_two_classes_can_be_asked_of_either() -> None:
    rows = some_binary()
    other = classified(rows.labels, rows.outputs, positive=0)
    assert only("f1_score", other).value == pytest.approx(metrics.f1_score(rows.labels, rows.predicted, pos_label=0))
    assert only("roc_auc", other).value == pytest.approx(only("roc_auc", rows).value)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10)), min_size=2, max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_rows_of_two_classes_give_scikit_learns_auc_within_its_interval(pairs: list[tuple[int, int]]) -> None:
    truth, scores = np.array([truth for truth, _ in pairs]), np.array([score / 10 for _, score in pairs])
    if len(set(truth.tolist())) < 2:
        return
    measure = only("roc_auc", classified(truth, scores))
    assert measure.value == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert 0 <= measure.low <= measure.value <= measure.high <= 1
    assert measure.low < measure.high


class TestFairness:
    """Rates from scikit-learn's confusion matrix by group; differences as fairlearn defines them."""

    def test_rates_and_differences(self) -> None:
        rows = some_binary(n=1200, seed=4)
        found = measured("fairness", rows)
        selection, tpr, fpr = {}, {}, {}
        for group in ("1", "2"):
            inside = rows.sensitive["SEX"] == group
            tn, fp, fn, tp = metrics.confusion_matrix(rows.labels[inside], rows.predicted[inside]).ravel()
            selection[group], tpr[group], fpr[group] = (tp + fp) / inside.sum(), tp / (tp + fn), fp / (fp + tn)
            prefix = f"fairness.SEX={group}."
            assert found[prefix + "accuracy_score"].value == pytest.approx((tp + tn) / inside.sum())
            assert found[prefix + "selection_rate"].value == pytest.approx(selection[group])
            assert found[prefix + "true_positive_rate"].value == pytest.approx(tpr[group])
            assert found[prefix + "false_positive_rate"].value == pytest.approx(fpr[group])
            assert found[prefix + "true_positive_rate"].n == tp + fn
        gaps = {name: abs(rate["1"] - rate["2"]) for name, rate in (("dp", selection), ("t", tpr), ("f", fpr))}
        assert found["fairness.SEX.demographic_parity_difference"].value == pytest.approx(gaps["dp"])
        assert found["fairness.SEX.equalized_odds_difference"].value == pytest.approx(max(gaps["t"], gaps["f"]))

    def test_a_small_group_is_no_figure_and_is_named_in_the_difference(self) -> None:
        rows = some_binary(n=1200)
        values = rows.sensitive["SEX"].copy()
        values[:30] = "3"
        findings = SCORERS["fairness"].score(
            classified(rows.labels, rows.outputs, sensitive={"SEX": values}), Options()
        )
        by_name = {finding.name: finding for finding in findings}
        small = by_name["fairness.SEX=3.selection_rate"]
        assert isinstance(small, Insufficient)
        assert (small.n, small.needed) == (30, 100)
        difference = by_name["fairness.SEX.demographic_parity_difference"]
        assert isinstance(difference, Measure)
        assert difference.note == "left out, fewer than 100 rows: 3"

    def test_one_group_of_size_gives_no_difference(self) -> None:
        rows = some_binary(n=300)
        findings = SCORERS["fairness"].score(
            classified(rows.labels, rows.outputs, sensitive={"SEX": ["1"] * 300}), Options()
        )
        differences = [finding for finding in findings if finding.name.endswith("_difference")]
        assert len(differences) == 2
        assert all(isinstance(finding, Insufficient) for finding in differences)

    def test_a_column_of_individuals_is_refused(self) -> None:
        rows = some_binary(n=300)
        everyone = classified(rows.labels, rows.outputs, sensitive={"name": [str(i) for i in range(300)]})
        with pytest.raises(TooManyGroups, match="300 different values"):
            SCORERS["fairness"].score(everyone, Options())
