"""Gates and decisions as pure functions: rules on intervals, a verdict with reasons, who may let a version through."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from services.policy.errors import AuthorUnverified, FourEyes, GateHolds, GateRejected, ReleaseManagerNeeded
from shared.events.base import Actor, AssetRef, Interval
from shared.events.policy import RuleOutcome
from shared.ids import digest_of

Result = Literal["pass", "review", "reject", "no-data"]
Verdict = Literal["pass", "review", "reject"]
Decision = Literal["approved", "rejected"]
Unverified = Literal["allow", "review", "reject"]

AUTHOR_MEASURE = "author.proven"
EVALUATION = "evaluation"
"""What a waiver names to set aside that nothing was measured."""
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
    """A gate's rules as they are kept and published, and why the verdict on them is what it is."""

    rules: tuple[RuleOutcome, ...]
    reason: str

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.rules)


def judge(
    gate: Gate, measures: Mapping[str, Interval], columns: Sequence[str], author: Actor, unverified: Unverified
) -> Judgement:
    """The gate's verdict: the worst of its rules. Missing data holds the version for review, it never passes."""
    rules = [expanded for rule in gate.rules for expanded in _expand(rule, columns)]
    outcomes = (
        *(hold_to(rule, measures.get(rule.measure)) for rule in rules),
        author_rule(author, gate.unverified_author or unverified),
    )
    rules_told = tuple(told(outcome) for outcome in outcomes)
    return Judgement(rules_told, summary_of(rules_told))


def failed(gate: Gate, columns: Sequence[str], code: str, reason: str) -> Judgement:
    """The judgement when the evaluation itself failed: an error is no score, so every rule is without data.

    A gate may have no rule left, as one about sensitive columns that are not known: then the evaluation is missing.
    """
    missing = Rule(EVALUATION, ">=", 1.0, "value")
    rules = [expanded for rule in gate.rules for expanded in _expand(rule, columns)] or [missing]
    held = tuple(
        told(Outcome(rule, "no-data", f"{rule.measure} was not measured: the evaluation failed")) for rule in rules
    )
    return Judgement(held, f"held: the evaluation failed with {code}: {reason}"[:4000])


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


def told(outcome: Outcome) -> RuleOutcome:
    """The outcome as it is kept and published."""
    rule = outcome.rule
    return RuleOutcome(
        measure=rule.measure,
        operator=rule.operator,
        threshold=rule.threshold,
        observed=outcome.observed,
        outcome=outcome.result,
        reason=outcome.reason,
    )


def unevaluated(author: Actor, unverified: Unverified) -> tuple[RuleOutcome, ...]:
    """The rules of a version that nothing has evaluated."""
    missing = Outcome(Rule(EVALUATION, ">=", 1.0, "value"), "no-data", "nothing has evaluated this version")
    return (told(missing), told(author_rule(author, unverified)))


@dataclass(frozen=True, slots=True)
class Waived:
    """A waiver in force: `measure` is set aside until it expires."""

    waiver_id: UUID
    measure: str
    signers: tuple[str, ...]
    expires_at: datetime

    def covers(self, rule: RuleOutcome) -> bool:
        """Its own rule, whatever was measured; a waiver of the evaluation covers missing data, never a bad figure."""
        return self.measure == rule.measure or (self.measure == EVALUATION and rule.outcome == "no-data")


def waive(rules: Iterable[RuleOutcome], waivers: Sequence[Waived]) -> tuple[tuple[RuleOutcome, ...], datetime | None]:
    """The rules with those set aside that a waiver covers, and when the first of the waivers used expires."""
    found, until = [], None
    for rule in rules:
        waiver = next((waiver for waiver in waivers if rule.outcome != "pass" and waiver.covers(rule)), None)
        if waiver is not None:
            why = f"waived by {' and '.join(waiver.signers)} until {waiver.expires_at:%Y-%m-%d}: {rule.reason}"
            rule = rule.model_copy(
                update={
                    "outcome": "pass", "reason": why[:4000], "waiver_id": waiver.waiver_id, "was": rule.outcome
                }
            )  # fmt: skip
            until = min(until, waiver.expires_at) if until else waiver.expires_at
        found.append(rule)
    return tuple(found), until


def without_waivers(rules: Iterable[RuleOutcome]) -> tuple[RuleOutcome, ...]:
    """The rules as they stood before any waiver."""
    return tuple(
        rule.model_copy(
            update={
                "outcome": rule.was, "reason": rule.reason.split(": ", 1)[-1], "waiver_id": None, "was": None
            }
        )
        if rule.was
        else rule
        for rule in rules
    )  # fmt: skip


def verdict_of(rules: Iterable[RuleOutcome]) -> Verdict:
    """The worst of the rules."""
    results = {rule.outcome for rule in rules}
    if "reject" in results:
        return "reject"
    return "review" if results & {"review", "no-data"} else "pass"


def summary_of(rules: Sequence[RuleOutcome]) -> str:
    """Why the verdict is what it is: what stands against the version, else what was waived."""
    against = [rule.reason for rule in rules if rule.outcome != "pass"] or [r.reason for r in rules if r.was]
    return ("; ".join(against) or f"all {len(rules)} rules pass")[:4000]


def require_may_sign(author: Actor, proposer: Actor, signer: Approver) -> None:
    """Return when the second person may sign. Raises FourEyes or ReleaseManagerNeeded.

    Two proven people, neither of them the author, and the second a release manager: a waiver lets through what the
    rules would not.
    """
    if not signer.releases:
        raise ReleaseManagerNeeded("a waiver is signed by a release manager")
    if not signer.actor.proven or proposer.same_person(signer.actor):
        raise FourEyes(f"{signer.actor.id} proposed this waiver; let a second person sign it")
    if author.proven and author.same_person(signer.actor):
        raise FourEyes(f"{signer.actor.id} is the author; let somebody else sign the waiver")


def require_may_propose(author: Actor, proposer: Actor) -> None:
    """Raises FourEyes: who wrote a version does not ask to be let off its rules by their own signature."""
    if not proposer.proven or (author.proven and author.same_person(proposer)):
        raise FourEyes(f"{proposer.id} is the author; a waiver is signed by two other people")


def waiver_statement(
    *,
    waiver_id: str,
    workspace: str,
    asset: AssetRef,
    measure: str,
    observed: float | None,
    signers: Sequence[Actor],
    reason: str,
    expires_at: datetime,
    signed_at: datetime,
) -> dict[str, Any]:
    """The payload of a signed waiver."""
    return {
        "type": "waiver",
        "waiver_id": waiver_id,
        "workspace": workspace,
        "asset": {"urn": asset.urn, "version": asset.version, "digest": asset.digest},
        "measure": measure,
        "observed": observed,
        "signers": [{"id": signer.id, "proven": signer.proven} for signer in signers],
        "reason": reason,
        "signed_at": signed_at.isoformat(),
        "expires_at": expires_at.isoformat(),
    }


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


def _short(number: float) -> str:
    return f"{number:.6g}"
