"""The form of a guard: what is looked for in requests and answers, what then happens, and what when looking fails.

A version brings guards along (`guardrails` of asset.submitted and of what follows), and a group's settings are made of
the same: it is one form, here, and the router says what each does and which of two is the stronger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from shared.events.base import Json

MAX_GUARDS = 32
PII_ENTITIES = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "PHONE_NUMBER", "US_SSN")
"""What is looked for unless a guard names others."""
ALL_PII = frozenset(
    (*PII_ENTITIES, "CRYPTO", "MEDICAL_LICENSE", "UK_NHS", "URL", "US_BANK_NUMBER", "US_DRIVER_LICENSE", "US_ITIN",
     "US_PASSPORT")
)  # fmt: skip


class Guarding(BaseModel):
    """One thing that is looked for. `when_it_fails` has no default: whoever adds a guard decides.

    `open`: a guard that cannot judge (an error, no time) lets pass; `closed`: the request is refused with 503.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")
    on: Literal["input", "output", "both"]
    action: Literal["block", "mask", "flag"]
    when_it_fails: Literal["open", "closed"]
    timeout_ms: int = Field(default=1000, ge=1, le=60_000)


class RegexGuard(Guarding):
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


class PiiGuard(Guarding):
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


class ToxicityGuard(Guarding):
    """Scores insults, threats and slurs by a lexicon."""

    kind: Literal["toxicity"]
    threshold: float = Field(default=0.6, gt=0, le=1)
    terms: tuple[str, ...] = Field(default=(), max_length=500)
    """More terms, of the operator's own; each scores 1."""


class PromptInjectionGuard(Guarding):
    """Scores phrases that try to override instructions, by a lexicon."""

    kind: Literal["prompt_injection"]
    threshold: float = Field(default=0.6, gt=0, le=1)


class JsonSchemaGuard(Guarding):
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
        from jsonschema import SchemaError  # takes longer to import than all contracts together
        from jsonschema.validators import validator_for

        try:
            validator_for(self.json_schema).check_schema(self.json_schema)
        except SchemaError as error:
            raise ValueError(f"the schema is none: {error.message[:200]}") from None
        if reference := _foreign_reference(self.json_schema):
            raise ValueError(f"the schema refers to {reference[:100]!r}; only references within it (`#…`) are followed")
        return self


class JudgeGuard(Guarding):
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


Guard = Annotated[
    RegexGuard | PiiGuard | ToxicityGuard | PromptInjectionGuard | JsonSchemaGuard | JudgeGuard,
    Field(discriminator="kind"),
]
GUARDS: TypeAdapter[tuple[Guard, ...]] = TypeAdapter(tuple[Guard, ...])


def require_distinct(guards: Iterable[Guard]) -> None:
    """Raises ValueError naming the guard that is there twice."""
    seen: set[str] = set()
    for guard in guards:
        if guard.name in seen:
            raise ValueError(f"there are two guards {guard.name!r}")
        seen.add(guard.name)


def _whole(guardrails: tuple[Json, ...]) -> tuple[Json, ...]:
    try:
        require_distinct(GUARDS.validate_python(guardrails))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    return guardrails


Guardrails = Annotated[tuple[Json, ...], Field(max_length=MAX_GUARDS), AfterValidator(_whole)]
"""Guards as a publisher wrote them, checked but without today's defaults: a version's digest covers these words."""


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
