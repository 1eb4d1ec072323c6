"""fairness: how differently a classifier treats the groups of each sensitive column. Names as fairlearn has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.evaluator.domain import Finding, Insufficient, Measure, Options, ScoredRows
from services.evaluator.errors import TooManyGroups
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer

MAX_GROUPS = 50
"""Beyond this a column names individuals, not groups, and pairs of groups run into the thousands."""

RATES = ("accuracy_score", "selection_rate", "true_positive_rate", "false_positive_rate")


@dataclass(frozen=True, slots=True)
class Group:
    """Counts of one group: for each of RATES, (successes, n). Only accuracy where no class means "selected"."""

    value: str
    rates: dict[str, tuple[int, int]]


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """By sensitive column: every group's rates, demographic_parity_difference and equalized_odds_difference.

    Rates with Wilson's interval. The differences are fairlearn's: largest minus smallest selection rate, and the larger
    of the largest differences in true and in false positive rate (`agg="worst_case"`), with the interval of
    intervals.widest_gap (Newcombe 1998 with Bonferroni). A rate on fewer than `min_group` rows is Insufficient; its
    group is left out of the differences, which say so in their note. Measures are named
    `fairness.<column>=<group>.<rate>` and `fairness.<column>.<difference>`.
    """
    findings: list[Finding] = []
    for column in sorted(rows.sensitive):
        groups = _groups(rows, column)
        for group in groups:
            findings += [_rate(column, group, rate, options) for rate in group.rates]
        if rows.positive is not None:
            findings.append(_gap(column, "demographic_parity_difference", groups, ("selection_rate",), options))
            odds = ("true_positive_rate", "false_positive_rate")
            findings.append(_gap(column, "equalized_odds_difference", groups, odds, options))
    return findings


def _groups(rows: ScoredRows, column: str) -> list[Group]:
    values = rows.sensitive[column]
    names = np.unique(values)
    if len(names) > MAX_GROUPS:
        raise TooManyGroups(
            f"the sensitive column {column!r} has {len(names)} different values; name one with at most {MAX_GROUPS}"
        )
    right = rows.predicted == rows.labels
    groups = []
    for name in names:
        inside = values == name
        rates = {"accuracy_score": _counts(right, inside)}
        if rows.positive is not None:
            selected, actual = rows.predicted == rows.positive, rows.labels == rows.positive
            rates["selection_rate"] = _counts(selected, inside)
            rates["true_positive_rate"] = _counts(selected, inside & actual)
            rates["false_positive_rate"] = _counts(selected, inside & ~actual)
        groups.append(Group(str(name), rates))
    return groups


def _counts(hit: np.ndarray, among: np.ndarray) -> tuple[int, int]:
    return int(np.count_nonzero(hit & among)), int(np.count_nonzero(among))


def _rate(column: str, group: Group, rate: str, options: Options) -> Finding:
    name, (hits, n) = f"{SCORER.name}.{column}={group.value}.{rate}", group.rates[rate]
    if n < options.min_group:
        return Insufficient(name, n, options.min_group, f"{n} rows are too few for a figure about this group")
    low, high = intervals.wilson(hits, n, options.level)
    better = rate != "false_positive_rate"
    return Measure(name, hits / n, low, high, n, "Wilson score", higher_is_better=better, level=options.level)


def _gap(column: str, difference: str, groups: list[Group], rates: tuple[str, ...], options: Options) -> Finding:
    """The widest gap in any of the rates, over groups with enough rows for all of them."""
    name = f"{SCORER.name}.{column}.{difference}"
    enough = [group for group in groups if all(group.rates[rate][1] >= options.min_group for rate in rates)]
    left_out = [group.value for group in groups if group not in enough]
    n = sum(group.rates["accuracy_score"][1] for group in enough)
    if len(enough) < 2:
        reason = f"{len(enough)} of {len(groups)} groups have {options.min_group} rows; a difference needs two"
        return Insufficient(name, n, 2 * options.min_group, reason)
    families = [[group.rates[rate] for group in enough] for rate in rates]
    value, low, high = intervals.widest_gap(families, options.level)
    return Measure(
        name,
        value,
        low,
        high,
        n,
        "Newcombe hybrid score of all pairs, Bonferroni",
        higher_is_better=False,
        level=options.level,
        note=f"left out, fewer than {options.min_group} rows: {', '.join(left_out)}" if left_out else "",
    )


SCORER = Scorer("fairness", ("classification",), score)
