"""A group's guards, and what it may make of those that its versions bring along: stricter, never looser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.router.group_settings.base import Section
from shared.errors import Refused
from shared.events.guardrails import (
    MAX_GUARDS,
    Guard,
    JsonSchemaGuard,
    JudgeGuard,
    PiiGuard,
    PromptInjectionGuard,
    RegexGuard,
    ToxicityGuard,
    require_distinct,
)

ACTIONS = ("flag", "mask", "block")
"""From the weakest to the strongest."""
FAILING = ("open", "closed")
SIDES = {"input": frozenset(("input",)), "output": frozenset(("output",)), "both": frozenset(("input", "output"))}


class GuardWeakened(Refused):
    """A group may tighten what a version's own guardrails say, and never loosen it."""

    code = "guard-weakened"

    def __init__(self, guard: str, what: str) -> None:
        super().__init__(
            f"The guard {guard!r} comes with the version and would be weakened: {what}. Leave it out of the group's "
            "guardrails to inherit it as it is, or make it stricter.",
            guard=guard,
        )
        self.guard = guard


class Suspicion(BaseModel):
    """When one caller's use looks like an attack on the model; gateway/suspicion tells how each is measured.

    Nothing is refused for it: `guardrail.tripped` says so, once an hour for a caller and a kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    scraping_distinct: int = Field(default=2000, ge=50)
    """Distinct inputs of one caller within an hour, spread over the feature space evenly as no population is."""
    duplicates: int = Field(default=50, ge=5)
    """Near-duplicates of one input within a minute."""
    probing: int = Field(default=20, ge=5)
    """Near-duplicates of one input with scores within 0.1 of 0.5 that went to and fro, within ten minutes."""


class Guardrails(Section):
    """Guards are asked in their order; the first that blocks ends it. A stream is checked in windows.

    Chunks of a streamed answer are held until `window_characters` of text have passed the guards, and of those the last
    `overlap_characters` until the next window has passed, so that what is split over two windows is found whole.
    """

    section: ClassVar[str] = "guardrails"

    guards: tuple[Guard, ...] = Field(default=(), max_length=MAX_GUARDS)
    window_characters: int = Field(default=200, ge=1, le=100_000)
    overlap_characters: int = Field(default=64, ge=0, le=10_000)
    suspicion: Suspicion | None = None

    @field_validator("guards")
    @classmethod
    def _distinct(cls, guards: tuple[Guard, ...]) -> tuple[Guard, ...]:
        require_distinct(guards)
        return guards


def tightened(bundle: Iterable[Guard], group: Iterable[Guard]) -> tuple[Guard, ...]:
    """What is in force of a version's own guards and its group's: all of the version's, then the group's further ones.

    A guard of the group replaces the version's of the same name where it is at least as strict. Raises GuardWeakened
    naming the guard where it is not.
    """
    own = {guard.name: guard for guard in group}
    found: list[Guard] = []
    for guard in bundle:
        other = own.pop(guard.name, None)
        if other is not None and (what := weakening(guard, other)):
            raise GuardWeakened(guard.name, what)
        found.append(other or guard)
    return (*found, *own.values())


def strictest(bundle: Iterable[Guard], group: Iterable[Guard]) -> tuple[Guard, ...]:
    """As `tightened`, for a version that came after the group's guards were set: what would weaken gives way."""
    bundle = tuple(bundle)
    brought = {guard.name: guard for guard in bundle}
    fitting = (one for one in group if one.name not in brought or not weakening(brought[one.name], one))
    return tightened(bundle, fitting)


def weakening(guard: Guard, other: Guard) -> str:
    """How `other` in the place of `guard` would find or do less, as half a sentence; empty when it would not."""
    if guard.kind != other.kind:
        return f"a {other.kind} guard would take the place of a {guard.kind} guard"
    if gone := SIDES[guard.on] - SIDES[other.on]:
        return f"the {sorted(gone)[0]} would no longer be looked at"
    if ACTIONS.index(other.action) < ACTIONS.index(guard.action):
        return f"it would {other.action} instead of {guard.action}"
    if FAILING.index(other.when_it_fails) < FAILING.index(guard.when_it_fails):
        return "it would fail open instead of closed"
    if other.when_it_fails == "open" and other.timeout_ms < guard.timeout_ms:
        return f"it would give up after {other.timeout_ms} ms instead of {guard.timeout_ms} ms and let pass"
    return _finds_less(guard, other)


def _finds_less(guard: Guard, other: Guard) -> str:
    """What of the kind's own parameters `other` finds less by, as half a sentence; both are of one kind."""
    match guard, other:
        case RegexGuard(), RegexGuard():
            if gone := [one for one in guard.patterns if one not in other.patterns]:
                return f"the pattern {gone[0]!r} is gone"
            return "it would heed case" if guard.ignore_case and not other.ignore_case else ""
        case PiiGuard(), PiiGuard():
            if missing := sorted(set(guard.entities) - set(other.entities)):
                return f"{missing[0]} is no longer looked for"
            if missing := sorted(set(guard.regions) - set(other.regions)):
                return f"telephone numbers of {missing[0]} are no longer looked for"
            return _higher("min_score", other.min_score, guard.min_score)
        case ToxicityGuard(), ToxicityGuard():
            if gone := [one for one in guard.terms if one not in other.terms]:
                return f"the term {gone[0]!r} is gone"
            return _higher("threshold", other.threshold, guard.threshold)
        case PromptInjectionGuard(), PromptInjectionGuard():
            return _higher("threshold", other.threshold, guard.threshold)
        case JsonSchemaGuard(), JsonSchemaGuard():
            return "" if other.json_schema == guard.json_schema else "its schema is another one"
        case JudgeGuard(), JudgeGuard():
            if (other.group, other.prompt, other.reads) != (guard.group, guard.prompt, guard.reads):
                return "its judge, prompt or reading is another one"
            return _higher("threshold", other.threshold, guard.threshold)
    raise AssertionError(f"{guard.kind} and {other.kind} are not compared")


def _higher(what: str, new: float, old: float) -> str:
    return f"its {what} would be {new} instead of {old}" if new > old else ""
