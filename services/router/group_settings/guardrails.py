"""What is looked for in a group's requests and answers, what then happens, and what when looking fails."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import jsonschema
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from services.router.group_settings.base import Section
from shared.errors import Refused

MAX_GUARDS = 32
ACTIONS = ("flag", "mask", "block")
"""From the weakest to the strongest."""
FAILING = ("open", "closed")
SIDES = {"input": frozenset(("input",)), "output": frozenset(("output",)), "both": frozenset(("input", "output"))}
PII_ENTITIES = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "PHONE_NUMBER", "US_SSN")
"""What is looked for unless a guard names others."""
ALL_PII = frozenset(
    (*PII_ENTITIES, "CRYPTO", "MEDICAL_LICENSE", "UK_NHS", "URL", "US_BANK_NUMBER", "US_DRIVER_LICENSE", "US_ITIN",
     "US_PASSPORT")
)  # fmt: skip


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


class _Guard(BaseModel):
    """One thing that is looked for. `when_it_fails` has no default: whoever adds a guard decides.

    `open`: a guard that cannot judge (an error, no time) lets pass; `closed`: the request is refused with 503.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")
    on: Literal["input", "output", "both"]
    action: Literal["block", "mask", "flag"]
    when_it_fails: Literal["open", "closed"]
    timeout_ms: int = Field(default=1000, ge=1, le=60_000)

    def looser_than(self, other: object) -> str:
        """What of this kind's own parameters finds less than the other's, as half a sentence; empty if nothing."""
        raise NotImplementedError


class RegexGuard(_Guard):
    """Finds what matches one of the patterns (Python's `re`)."""

    kind: Literal["regex"]
    patterns: tuple[str, ...] = Field(min_length=1, max_length=50)
    ignore_case: bool = False

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if len(pattern) > 500:
                raise ValueError("a pattern has at most 500 characters")
            try:
                compiled = re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"{pattern[:60]!r} is no regular expression: {error}") from None
            if compiled.match(""):
                raise ValueError(f"{pattern[:60]!r} matches an empty text, and so every request")
        return patterns

    def looser_than(self, other: object) -> str:
        assert isinstance(other, RegexGuard)
        if missing := [one for one in other.patterns if one not in self.patterns]:
            return f"the pattern {missing[0]!r} is gone"
        return "it would heed case" if other.ignore_case and not self.ignore_case else ""


class PiiGuard(_Guard):
    """Finds personal data by Presidio's pattern recognizers, which need no model and no network."""

    kind: Literal["pii"]
    entities: tuple[str, ...] = Field(default=PII_ENTITIES, min_length=1, max_length=40)
    min_score: float = Field(default=0.35, ge=0, le=1)
    regions: tuple[str, ...] = Field(default=("US", "GB", "DE", "FR", "IN"), max_length=20)
    """Of telephone numbers that are written without a country's prefix."""

    @field_validator("entities")
    @classmethod
    def _known(cls, entities: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(entities) - ALL_PII):
            raise ValueError(f"{unknown[0][:40]!r} is not looked for; there are {', '.join(sorted(ALL_PII))}")
        return entities

    @field_validator("regions")
    @classmethod
    def _codes(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        for region in regions:
            if not re.fullmatch(r"[A-Z]{2}", region):
                raise ValueError(f"{region[:40]!r} is no region: two capitals, such as US")
        return regions

    def looser_than(self, other: object) -> str:
        assert isinstance(other, PiiGuard)
        if missing := sorted(set(other.entities) - set(self.entities)):
            return f"{missing[0]} is no longer looked for"
        if missing := sorted(set(other.regions) - set(self.regions)):
            return f"telephone numbers of {missing[0]} are no longer looked for"
        return _higher("min_score", self.min_score, other.min_score)


class ToxicityGuard(_Guard):
    """Scores insults, threats and slurs by a lexicon; see gateway/guardrails/lexical.py for its limits."""

    kind: Literal["toxicity"]
    threshold: float = Field(default=0.6, gt=0, le=1)
    terms: tuple[str, ...] = Field(default=(), max_length=500)
    """More terms, of the operator's own; each scores 1."""

    def looser_than(self, other: object) -> str:
        assert isinstance(other, ToxicityGuard)
        if missing := [one for one in other.terms if one not in self.terms]:
            return f"the term {missing[0]!r} is gone"
        return _higher("threshold", self.threshold, other.threshold)


class PromptInjectionGuard(_Guard):
    """Scores phrases that try to override instructions; see gateway/guardrails/lexical.py for its limits."""

    kind: Literal["prompt_injection"]
    threshold: float = Field(default=0.6, gt=0, le=1)

    def looser_than(self, other: object) -> str:
        assert isinstance(other, PromptInjectionGuard)
        return _higher("threshold", self.threshold, other.threshold)


class JsonSchemaGuard(_Guard):
    """Holds an answer to a JSON Schema (2020-12 unless it says otherwise). A stream is held back until its end.

    Of a conversation the schema is about the answer's text, which must be JSON; of the Open Inference Protocol about
    `{tensor name: data}`.
    """

    kind: Literal["json_schema"]
    json_schema: dict[str, Any]

    @model_validator(mode="after")
    def _fits(self) -> JsonSchemaGuard:
        if self.on != "output":
            raise ValueError("a json_schema guard is on the output")
        if self.action == "mask":
            raise ValueError("what does not fit a schema can be blocked or flagged, not masked")
        try:
            jsonschema.validators.validator_for(self.json_schema).check_schema(self.json_schema)
        except jsonschema.SchemaError as error:
            raise ValueError(f"the schema is none: {error.message[:200]}") from None
        if reference := _foreign_reference(self.json_schema):
            raise ValueError(f"the schema refers to {reference[:100]!r}; only references within it (`#…`) are followed")
        return self

    def looser_than(self, other: object) -> str:
        assert isinstance(other, JsonSchemaGuard)
        return "" if self.json_schema == other.json_schema else "its schema is another one"


class JudgeGuard(_Guard):
    """Asks another group of the workspace, which speaks chat completions, about the text.

    `reads`: `yes_no` trips on an answer that begins with yes, `score` on a number from 0 to 1 at or above `threshold`.
    A stream is held back until its end, so that one question is asked of the whole answer. The judge's own guards with
    a judge are not asked again.
    """

    kind: Literal["judge"]
    group: str = Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")
    prompt: str = Field(min_length=10, max_length=8000)
    reads: Literal["yes_no", "score"] = "yes_no"
    threshold: float = Field(default=0.5, gt=0, le=1)
    max_tokens: int = Field(default=16, ge=1, le=4096)

    @model_validator(mode="after")
    def _fits(self) -> JudgeGuard:
        if self.prompt.count("{text}") != 1:
            raise ValueError("the prompt holds {text} once, where the text to judge is put")
        if self.action == "mask":
            raise ValueError("a judge says whether and not where; block or flag")
        return self

    def looser_than(self, other: object) -> str:
        assert isinstance(other, JudgeGuard)
        if (self.group, self.prompt, self.reads) != (other.group, other.prompt, other.reads):
            return "its judge, prompt or reading is another one"
        return _higher("threshold", self.threshold, other.threshold)


Guard = Annotated[
    RegexGuard | PiiGuard | ToxicityGuard | PromptInjectionGuard | JsonSchemaGuard | JudgeGuard,
    Field(discriminator="kind"),
]
GUARDS: TypeAdapter[tuple[Guard, ...]] = TypeAdapter(tuple[Guard, ...])
"""Reads the guards that a version brings along."""


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


def require_distinct(guards: Iterable[Guard]) -> None:
    """Raises ValueError naming the guard that is there twice."""
    seen: set[str] = set()
    for guard in guards:
        if guard.name in seen:
            raise ValueError(f"there are two guards {guard.name!r}")
        seen.add(guard.name)


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
    return other.looser_than(guard)


def _higher(what: str, new: float, old: float) -> str:
    return f"its {what} would be {new} instead of {old}" if new > old else ""


def _foreign_reference(node: Any) -> str:
    """A `$ref` that leads out of the schema; nothing is fetched for one."""
    if isinstance(node, list):
        return next((found for one in node if (found := _foreign_reference(one))), "")
    if not isinstance(node, dict):
        return ""
    reference = node.get("$ref") or node.get("$dynamicRef")
    if isinstance(reference, str) and not reference.startswith("#"):
        return reference
    return next((found for one in node.values() if (found := _foreign_reference(one))), "")
