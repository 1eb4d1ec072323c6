"""Gates and decisions as pure functions: rules on intervals, a verdict with reasons, who may let a version through."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from services.policy.errors import AuthorUnverified, FourEyes, GateHolds, GateRejected, ReleaseManagerNeeded
from shared.events.base import Actor, AssetRef, Interval
from shared.ids import digest_of

Result = Literal["pass", "review", "reject", "no-data"]
Verdict = Literal["pass", "review", "reject"]
Decision = Literal["approved", "rejected"]
Unverified = Literal["allow", "review", "reject"]

AUTHOR_MEASURE = "author.proven"
MOST_ROWS_WORTH_SAYING = 10**9

SERVICE = Actor(id="service:policy", proven=True)
"""Who acts when a rule decides and no person does."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`measure` must be at least (`>=`) or at most (`<=`) `threshold`.

    `on` is `interval` (the whole confidence interval must be on the right side) or `value` (for what is counted, not
    estimated). A measure with `{column}` stands for one rule per sensitive column of the golden set.
    """

    measure: str
    operator: Literal[">=", "<="]
    threshold: float
    on: Literal["interval", "value"] = "interval"


@dataclass(frozen=True, slots=True)
class Gate:
    """One published version of a gate. `unverified_author` overrides the installation's setting when it is given."""

    name: str
    version: int
    rules: tuple[Rule, ...]
    unverified_author: Unverified | None = None

    @classmethod
    def read(cls, name: str, version: int, document: Mapping[str, Any]) -> Gate:
        rules = tuple(
            Rule(rule["measure"], rule["operator"], rule["threshold"], rule.get("on", "interval"))
            for rule in document["rules"]
        )
        return cls(name, version, rules, document.get("unverified_author"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One rule with what it saw."""

    rule: Rule
    result: Result
    reason: str
    observed: Interval | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    reason: str
    outcomes: tuple[Outcome, ...] = ()


def judge(
    gate: Gate, measures: Mapping[str, Interval], columns: Sequence[str], author: Actor, unverified: Unverified
) -> Judgement:
    """The gate's verdict: the worst of its rules. Missing data holds the version for review, it never passes."""
    rules = [expanded for rule in gate.rules for expanded in _expand(rule, columns)]
    outcomes = (
        *(hold_to(rule, measures.get(rule.measure)) for rule in rules),
        author_rule(author, gate.unverified_author or unverified),
    )
    return Judgement(_worst(outcomes), _summary(outcomes), outcomes)


def failed(gate: Gate, columns: Sequence[str], code: str, reason: str) -> Judgement:
    """The judgement when the evaluation itself failed: an error is no score, so every rule is without data."""
    rules = [expanded for rule in gate.rules for expanded in _expand(rule, columns)]
    outcomes = tuple(
        Outcome(rule, "no-data", f"{rule.measure} was not measured: the evaluation failed") for rule in rules
    )
    return Judgement("review", f"held: the evaluation failed with {code}: {reason}"[:4000], outcomes)


def hold_to(rule: Rule, observed: Interval | None) -> Outcome:
    """Hold one measure to one rule: wholly on the right side passes, wholly on the wrong one rejects, else review."""
    if observed is None:
        return Outcome(rule, "no-data", f"{rule.measure} was not measured; nothing passes without data")
    if observed.n == 0:
        return Outcome(rule, "no-data", f"{rule.measure} rests on no rows; nothing passes without data", observed)
    low, high = (observed.low, observed.high) if rule.on == "interval" else (observed.value, observed.value)
    good, bad = (low >= rule.threshold, high < rule.threshold)
    if rule.operator == "<=":
        good, bad = (high <= rule.threshold, low > rule.threshold)
    right, wrong = ("above", "below") if rule.operator == ">=" else ("below", "above")
    seen = f"{rule.measure} {_short(low)}" + (f" to {_short(high)}" if rule.on == "interval" else "")
    if good:
        return Outcome(rule, "pass", f"{seen} lies wholly at or {right} {_short(rule.threshold)}", observed)
    if bad:
        return Outcome(rule, "reject", f"{seen} lies wholly {wrong} {_short(rule.threshold)}", observed)
    more = rows_to_settle(observed, rule.threshold)
    hint = (
        f"about {more:,} more rows would settle it"
        if more is not None
        else "no sensible number of rows would settle it"
    )
    return Outcome(rule, "review", f"{seen} lies on both sides of {_short(rule.threshold)}; {hint}", observed)


def rows_to_settle(observed: Interval, threshold: float) -> int | None:
    """How many more rows would take the interval off the threshold, if the value stays; None when none would.

    A confidence interval's half-width w falls with the root of the rows: w(n) = w·√(n/n'). It clears a threshold at
    distance d when w(n') <= d, so n' = n·(w/d)² (Cochran, Sampling Techniques, 3rd ed. 1977, section 4.4, for n).
    w is the half on the threshold's side, since intervals need not be symmetric.
    """
    distance = abs(observed.value - threshold)
    half = observed.value - observed.low if observed.value >= threshold else observed.high - observed.value
    if distance == 0 or half <= 0:
        return None
    # Compared as floats first: a tiny distance would make an integer of hundreds of digits, or an overflow.
    more = observed.n * ((half / distance) * (half / distance) - 1)
    return max(1, math.ceil(more)) if math.isfinite(more) and more <= MOST_ROWS_WORTH_SAYING else None


def author_rule(author: Actor, unverified: Unverified) -> Outcome:
    """What the gate makes of an author whom no signature proves."""
    rule = Rule(AUTHOR_MEASURE, ">=", 1.0, "value")
    if author.proven:
        return Outcome(rule, "pass", f"the author {author.id} is proven by a signature")
    if unverified == "allow":
        return Outcome(rule, "pass", "the author is unverified, which this gate allows")
    return Outcome(rule, unverified, "no signature proves the author; submit the version again with a proof")


def binding(
    asset: AssetRef, artefact: str | None, prompts: Iterable[str], dataset: str | None, report: str | None
) -> str:
    """What an approval binds to: version, artefact, prompts, dataset manifest and evaluation report, all by digest."""
    return digest_of(
        {"asset": asset.digest, "artefact": artefact, "prompts": list(prompts), "dataset": dataset, "report": report}
    )


@dataclass(frozen=True, slots=True)
class Approver:
    """The caller who decides. `releases` is true for whoever may release to production (a Cedar decision)."""

    actor: Actor
    releases: bool


def require_may_approve(
    author: Actor, approver: Approver, verdict: Verdict, results: Iterable[Result], unverified: Unverified
) -> None:
    """Return when the approver may let this version through. Raises the reason why not.

    Four eyes: never the author. Someone unproven may be anybody, so nobody can be told apart from an unverified
    author: that takes an installation that allows it, and a release manager who answers for it.
    """
    if verdict == "reject":
        raise GateRejected()
    if "no-data" in results:
        raise GateHolds()
    require_second_person(author, approver, unverified)
    if verdict == "review" and not approver.releases:
        raise ReleaseManagerNeeded(
            "the gate asks for a review, and a release manager decides what a review lets through"
        )


def require_second_person(author: Actor, approver: Approver, unverified: Unverified) -> None:
    """Raises FourEyes, AuthorUnverified or ReleaseManagerNeeded."""
    if author.proven and author.same_person(approver.actor):
        raise FourEyes(f"{approver.actor.id} is the author; let a second person decide")
    if author.proven:
        return
    if unverified != "allow":
        raise AuthorUnverified()
    if not approver.releases:
        raise ReleaseManagerNeeded("the author is unverified, and only a release manager may answer for such a version")


def standing(
    decision: Decision | None, same_gate: bool, same_binding: bool, in_force: bool
) -> Literal["pending", "approved", "rejected"]:
    """What the last decision means for the gate in force.

    An approval holds for its binding, so it outlives another gate on the same evidence, and nothing else. A rejection
    holds for the gate that it was about.
    """
    if decision == "approved" and same_binding and in_force:
        return "approved"
    return "rejected" if decision == "rejected" and same_gate else "pending"


def statement(
    *,
    approval_id: str,
    workspace: str,
    asset: AssetRef,
    artefact: str | None,
    bound: str,
    gate_id: str,
    policy: str,
    policy_version: int,
    approver: Actor,
    author: Actor,
    reason: str,
    decided_at: datetime,
    expires_at: datetime,
) -> dict[str, Any]:
    """The payload of the signed approval: what deployer and gateway read once its signature holds."""
    return {
        "type": "approval",
        "approval_id": approval_id,
        "workspace": workspace,
        "asset": {"urn": asset.urn, "version": asset.version, "digest": asset.digest},
        "artefact": artefact,
        "binding": bound,
        "decision": "approved",
        "approver": {"id": approver.id, "proven": approver.proven},
        "author": {"id": author.id, "proven": author.proven},
        "reason": reason,
        "gate_id": gate_id,
        "policy": policy,
        "policy_version": policy_version,
        "decided_at": decided_at.isoformat(),
        "expires_at": expires_at.isoformat(),
    }


def _expand(rule: Rule, columns: Sequence[str]) -> list[Rule]:
    if "{column}" not in rule.measure:
        return [rule]
    return [
        Rule(rule.measure.replace("{column}", column), rule.operator, rule.threshold, rule.on) for column in columns
    ]


def _worst(outcomes: Iterable[Outcome]) -> Verdict:
    results = {outcome.result for outcome in outcomes}
    if "reject" in results:
        return "reject"
    return "review" if results & {"review", "no-data"} else "pass"


def _summary(outcomes: Sequence[Outcome]) -> str:
    against = [outcome.reason for outcome in outcomes if outcome.result != "pass"]
    return ("; ".join(against) or f"all {len(outcomes)} rules pass")[:4000]


def _short(number: float) -> str:
    return f"{number:.6g}"
