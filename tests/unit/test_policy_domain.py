"""Gates judge whole intervals, missing data never pass, and nobody lets a version of their own through."""

from __future__ import annotations

import math

import pytest

from services.policy.domain import (
    Approver,
    Gate,
    Rule,
    author_rule,
    failed,
    hold_to,
    judge,
    require_may_approve,
    rows_to_settle,
    standing,
)
from services.policy.errors import AuthorUnverified, FourEyes, GateHolds, GateRejected, ReleaseManagerNeeded
from services.policy.handlers.gates import shipped
from shared.errors import MintmarkError
from shared.events.base import Actor, Interval

ADA, BEA = Actor(id="user:ada", proven=True), Actor(id="user:bea", proven=True)
NOBODY = Actor(id="unverified", proven=False)


def interval(low: float, high: float, n: int = 400, value: float | None = None) -> Interval:
    return Interval(value=(low + high) / 2 if value is None else value, low=low, high=high, n=n, method="test")


@pytest.mark.parametrize(
    ("operator", "low", "high", "result"),
    [
        (">=", 0.8, 0.9, "pass"),
        (">=", 0.79, 0.9, "review"),
        (">=", 0.7, 0.8, "review"),
        (">=", 0.7, 0.79, "reject"),
        ("<=", 0.7, 0.8, "pass"),
        ("<=", 0.7, 0.81, "review"),
        ("<=", 0.81, 0.9, "reject"),
    ],
)
def test_the_whole_interval_must_be_on_the_right_side(operator: str, low: float, high: float, result: str) -> None:
    assert hold_to(Rule("m", operator, 0.8), interval(low, high)).result == result  # type: ignore[arg-type]


def test_a_count_is_held_to_its_value() -> None:
    rule = Rule("coverage", ">=", 0.99, "value")
    assert hold_to(rule, interval(0.98, 1.0, value=0.991)).result == "pass"
    assert hold_to(rule, interval(0.98, 1.0, value=0.989)).result == "reject"


def test_missing_data_hold_and_never_pass() -> None:
    gate = Gate("g", 1, (Rule("roc_auc", ">=", 0.8),))
    assert judge(gate, {}, (), ADA, "allow").verdict == "review"
    assert judge(gate, {"roc_auc": interval(1, 1, n=0)}, (), ADA, "allow").verdict == "review"
    assert failed(gate, (), "timeout", "took too long").verdict == "review"


def test_a_failed_evaluation_holds_where_no_rule_is_left() -> None:
    by_column = Gate("g", 1, (Rule("fairness.{column}.gap", "<=", 0.1),))
    judgement = failed(by_column, (), "timeout", "took too long")  # nobody knows which columns are sensitive
    assert judgement.verdict == "review"
    assert [(rule.measure, rule.outcome) for rule in judgement.rules] == [("evaluation", "no-data")]


def test_rows_to_settle_is_what_a_proportion_needs() -> None:
    def wald(n: int) -> Interval:
        half = 1.96 * math.sqrt(0.83 * 0.17 / n)
        return Interval(value=0.83, low=0.83 - half, high=0.83 + half, n=n, method="Wald")

    more = rows_to_settle(wald(200), 0.8)
    assert more is not None
    assert wald(200 + more).low == pytest.approx(0.8, abs=1e-4)
    assert rows_to_settle(interval(0.7, 0.9), 0.8) is None
    assert rows_to_settle(interval(0.7, 0.9, value=0.8 + 1e-12), 0.8) is None
    assert rows_to_settle(interval(0, 5e-324, value=0), 5e-324) is not None


def test_a_rule_for_each_sensitive_column() -> None:
    gate = Gate("g", 1, (Rule("fairness.{column}.gap", "<=", 0.1),))
    measures = {"fairness.SEX.gap": interval(0.01, 0.05)}
    assert judge(gate, measures, ("SEX",), ADA, "allow").verdict == "pass"
    assert judge(gate, measures, ("SEX", "RAC1P"), ADA, "allow").verdict == "review"
    assert judge(gate, {}, (), ADA, "allow").verdict == "pass"


def test_the_worst_rule_is_the_verdict() -> None:
    gate = Gate("g", 1, (Rule("a", ">=", 0.5), Rule("b", ">=", 0.5), Rule("c", ">=", 0.5)))
    judgement = judge(
        gate, {"a": interval(0.6, 0.7), "b": interval(0.4, 0.6), "c": interval(0.1, 0.2)}, (), ADA, "allow"
    )
    assert judgement.verdict == "reject"
    assert [rule.outcome for rule in judgement.rules] == ["pass", "review", "reject", "pass"]


def test_an_unverified_author_is_what_the_installation_makes_of_it() -> None:
    assert [author_rule(NOBODY, unverified).result for unverified in ("allow", "review", "reject")] == [
        "pass",
        "review",
        "reject",
    ]  # type: ignore[arg-type]
    assert author_rule(ADA, "reject").result == "pass"
    assert judge(Gate("g", 1, (), "reject"), {}, (), NOBODY, "allow").verdict == "reject"


@pytest.mark.parametrize(
    ("author", "approver", "releases", "verdict", "results", "unverified", "error"),
    [
        (ADA, BEA, False, "pass", ["pass"], "allow", None),
        (ADA, ADA, True, "pass", ["pass"], "allow", FourEyes),
        (ADA, BEA, False, "review", ["review"], "allow", ReleaseManagerNeeded),
        (ADA, BEA, True, "review", ["review"], "allow", None),
        (ADA, BEA, True, "review", ["no-data"], "allow", GateHolds),
        (ADA, BEA, True, "reject", ["reject"], "allow", GateRejected),
        (NOBODY, BEA, False, "pass", ["pass"], "allow", ReleaseManagerNeeded),
        (NOBODY, BEA, True, "pass", ["pass"], "allow", None),
        (NOBODY, BEA, True, "pass", ["pass"], "review", AuthorUnverified),
        (ADA, Actor(id="user:eve", proven=False), True, "pass", ["pass"], "allow", FourEyes),
    ],
)
def test_who_may_let_a_version_through(
    author: Actor,
    approver: Actor,
    releases: bool,
    verdict: str,
    results: list[str],
    unverified: str,
    error: type[MintmarkError] | None,
) -> None:
    arguments = (author, Approver(approver, releases), verdict, results, unverified)
    if error is None:
        require_may_approve(*arguments)  # type: ignore[arg-type]
        return
    with pytest.raises(error):
        require_may_approve(*arguments)  # type: ignore[arg-type]


def test_what_a_decision_still_means() -> None:
    assert standing("approved", same_gate=False, same_binding=True, in_force=True) == "approved"
    assert standing("approved", same_gate=True, same_binding=True, in_force=False) == "pending"
    assert standing("approved", same_gate=False, same_binding=False, in_force=True) == "pending"
    assert standing("rejected", same_gate=True, same_binding=True, in_force=False) == "rejected"
    assert standing("rejected", same_gate=False, same_binding=True, in_force=False) == "pending"
    assert standing(None, same_gate=False, same_binding=False, in_force=False) == "pending"


def test_the_shipped_gates_are_readable() -> None:
    for name, document in shipped().items():
        assert Gate.read(name, 1, document).rules
