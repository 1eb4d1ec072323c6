"""What the licences of everything that a version stands on ask of it, and where they contradict its own. Pure.

A choice (`MIT OR GPL-3.0-only`) is decided for the version: of its own alternatives and of each part's, those are taken
that leave the fewest conflicts. What comes along bases alone is certain; what comes through a dataset or a prompt is
for a person to judge (`review`), since whether a model is a work derived from its data is a question of law.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from services.registry.licences import expressions
from services.registry.licences.closure import Closure, Path, Reached, spoken
from services.registry.licences.expressions import Alternative, Reading
from services.registry.licences.terms import Right, Terms

Severity = Literal["conflict", "review"]
ORDER: tuple[Right, ...] = ("allowed", "limited", "unknown", "forbidden")


@dataclass(frozen=True, slots=True)
class Obligation:
    """Something that whoever passes the version on, or uses it, has to do; `node` is the part that brings it."""

    kind: Literal["attribution", "notice", "display", "naming", "share-alike", "restrictions", "users", "outputs"]
    text: str
    licence: str
    node: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two licences that cannot both be kept, with the path that brings them together."""

    kind: Literal["non-commercial", "no-derivatives", "share-alike", "restrictions-dropped", "naming"]
    severity: Severity
    licence: str
    reason: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """A part whose licence says nothing that can be judged."""

    node: str
    written: str | None
    reason: str
    near: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The licence of a version, its own and in effect."""

    declared: Reading | None
    effective: str | None
    commercial: Right
    derivatives: Right
    obligations: tuple[Obligation, ...]
    conflicts: tuple[Conflict, ...]
    gaps: tuple[Gap, ...]


def judge(closure: Closure) -> Judgement:
    """Everything that can be said of a version's licence from what is registered."""
    root = closure.root
    declared = expressions.read(root.licence) if root.licence else None
    gaps = [_gap(root.node, root.licence, declared)] if declared is None or not declared.is_known else []
    bound: list[tuple[Reached, Reading]] = []
    for reached in closure.reached:
        if reached.path[-1].relation == "golden-set":
            continue  # what a version is measured on is no part of it
        reading = expressions.read(reached.part.licence) if reached.part.licence else None
        if reading is None or not reading.is_known:
            gaps.append(_gap(reached.part.node, reached.part.licence, reading))
        else:
            bound.append((reached, reading))
    gaps += [Gap(path[-1].node, None, f"not registered here: {spoken(root.node, path)}") for path in closure.missing]
    own: tuple[Alternative | None, ...] = declared.alternatives if declared and declared.is_known else (None,)
    mine, conflicts, chosen = min(
        ((one, *_against(closure, one, bound)) for one in own), key=lambda found: len(found[1])
    )
    terms = [(root.node, term) for term in mine or ()]
    terms += [(reached.part.node, term) for reached, one in chosen for term in one]
    return Judgement(
        declared,
        _effective(declared, bound),
        max((term.commercial for _, term in terms), key=ORDER.index, default="unknown"),
        max((term.derivatives for _, term in terms), key=ORDER.index, default="unknown"),
        tuple(dict.fromkeys(one for node, term in terms for one in _asked(term, node))),
        tuple(conflicts),
        tuple(gaps),
    )


def _gap(node: str, written: str | None, reading: Reading | None) -> Gap:
    if reading is None:
        return Gap(node, written, "no licence is declared")
    return Gap(node, written, f"unknown: {', '.join(part[:100] for part in reading.unknown)}", reading.near)


def _effective(declared: Reading | None, bound: list[tuple[Reached, Reading]]) -> str | None:
    """The declared licence and every one that comes with a part, each once."""
    found = [declared.expression or declared.written] if declared else []
    found += [reading.expression or reading.written for _, reading in bound]
    each = list(dict.fromkeys(found))
    return " AND ".join(f"({one})" if " OR " in one and len(each) > 1 else one for one in each) or None


def _against(
    closure: Closure, mine: Alternative | None, bound: list[tuple[Reached, Reading]]
) -> tuple[list[Conflict], list[tuple[Reached, Alternative]]]:
    """The conflicts of one of the version's alternatives with the parts, each part's best alternative taken."""
    conflicts: list[Conflict] = []
    chosen: list[tuple[Reached, Alternative]] = []
    for reached, reading in bound:
        found, one = min(
            ((list(_between(closure, mine, reached, one)), one) for one in reading.alternatives),
            key=lambda choice: len(choice[0]),
        )
        conflicts += found
        chosen.append((reached, one))
    return conflicts, chosen


def _between(closure: Closure, mine: Alternative | None, reached: Reached, theirs: Alternative) -> Iterator[Conflict]:
    root, node = closure.root, reached.part.node
    certain = all(step.relation == "base" for step in reached.path)
    names = " AND ".join(term.key for term in mine or ())
    for term in theirs:

        def conflict(kind: str, reason: str, sure: bool = certain, term: Terms = term) -> Conflict:
            severity: Severity = "conflict" if sure else "review"
            return Conflict(kind, severity, term.key, reason, _nodes(root.node, reached.path))  # type: ignore[arg-type]

        if term.derivatives == "forbidden":
            yield conflict("no-derivatives", f"{node} is under {term.key}, which lets no derivative be passed on")
        if mine is None:
            continue
        if term.commercial == "forbidden" and all(own.commercial in ("allowed", "limited") for own in mine):
            yield conflict("non-commercial", f"{node} is under {term.key}, for no commercial use; {names} allows it")
        if term.share_alike and not any(own.serves_share_alike_of(term) for own in mine):
            yield conflict("share-alike", f"{node} is under {term.key}, to be passed on alike; {names} is not alike")
        if term.restrictions and not any(own.family == term.family for own in mine):
            reason = f"{node} is under {term.key}, whose restrictions go along with it; {names} drops them"
            yield conflict("restrictions-dropped", reason)
        if term.name_prefix and not root.name.startswith(term.name_prefix.lower().split(" ")[0]):
            reason = f"{term.key} wants the name of what derives from {node} to begin with {term.name_prefix!r}"
            yield conflict("naming", reason, False)


def _nodes(root: str, path: Path) -> tuple[str, ...]:
    return (root, *(step.node for step in path))


def _asked(term: Terms, node: str) -> Iterator[Obligation]:
    if term.notice:
        yield Obligation("notice", term.notice, term.key, node)
    elif term.attribution:
        text = f"keep the copyright notices, and a copy or the address of {term.name}"
        yield Obligation("attribution", text, term.key, node)
    if term.built_with:
        yield Obligation("display", f"show {term.built_with!r} where users see it", term.key, node)
    if term.name_prefix:
        yield Obligation("naming", f"begin the name of a derived model with {term.name_prefix!r}", term.key, node)
    if term.share_alike:
        yield Obligation("share-alike", f"pass it on under {term.key} or a licence that it allows", term.key, node)
    if term.restrictions:
        yield Obligation("restrictions", f"keep to, and pass on, {term.restrictions}", term.key, node)
    if term.monthly_users:
        yield Obligation(
            "users", f"above {term.monthly_users:,} monthly active users, ask for a licence of your own", term.key, node
        )
    if term.outputs:
        yield Obligation("outputs", term.outputs, term.key, node)
