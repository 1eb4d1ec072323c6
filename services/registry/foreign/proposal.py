"""A proposal: what a foreign document would become, how people correct it, and what is kept for next time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from services.registry.foreign import document, fields, rules
from services.registry.foreign.fields import Field, Unreadable
from shared.errors import Invalid

BY_MAPPING, BY_PERSON = 0.98, 1.0


class Rule(BaseModel):
    """One correction: the field is what stands at `source`, or `value`, or (neither) it is left out."""

    model_config = ConfigDict(frozen=True)

    field: str
    source: str | None = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """Corrections under a name, for documents of one structure."""

    name: str
    shape: str
    rules: tuple[Rule, ...]
    made_by: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Proposal:
    """`document` is the digest of the foreign JSON; with `urn` it was accepted."""

    id: UUID
    document: str
    shape: str
    mapping: str | None
    fields: tuple[Field, ...]
    unmapped: dict[str, Any]
    notes: tuple[str, ...]
    made_by: str
    made_at: datetime
    urn: str | None = None
    submission_id: UUID | None = None
    version: int | None = None
    accepted_at: datetime | None = None

    def field(self, name: str) -> Any:
        """A field's value; None where it is not there."""
        return next((one.value for one in self.fields if one.field == name), None)

    def group(self, name: str) -> dict[str, Any]:
        """`metrics.…` by what follows the point."""
        return {one.field.partition(".")[2]: one.value for one in self.fields if one.field.partition(".")[0] == name}


@dataclass(frozen=True, slots=True)
class Draft:
    """Fields by name, and what the document has beside them."""

    fields: dict[str, Field]
    unmapped: dict[str, Any]


def drafted(whole: Any, corrections: Sequence[Rule] = ()) -> Draft:
    """What the rules make of a document, with a mapping's corrections over them. Those that do not fit are left out."""
    reading = rules.read(whole)
    found = dict(reading.found)
    claimed = set(reading.claimed)
    for rule in corrections:
        before = found.pop(rule.field, None)
        if rule.source is None and rule.value is None:
            if before is not None and before.source is not None:
                claimed.discard(document.read(before.source))
            continue
        try:
            made = _made(whole, rule, "mapping", BY_MAPPING, "the mapping that was kept says so")
        except (Invalid, Unreadable, ValueError):
            if before is not None:
                found[rule.field] = before
            continue
        found[made.field] = made
        if rule.source is not None:
            claimed.add(document.read(rule.source))
    return Draft(found, document.unclaimed(whole, claimed))


def with_fields(draft: Draft, more: Iterable[Field], whole: Any) -> Draft:
    """A draft with further fields, which leave less over."""
    added = list(more)
    found = {**draft.fields, **{one.field: one for one in added}}
    sources = {document.read(one.source) for one in added if one.source is not None}
    return Draft(found, _less(whole, draft.unmapped, sources))


def corrected(whole: Any, proposal: Proposal, corrections: Sequence[Rule]) -> Proposal:
    """The proposal as a person wants it. Raises Invalid, naming the field."""
    found = {one.field: one for one in proposal.fields}
    unmapped = dict(proposal.unmapped)
    for rule in corrections:
        fields.check_name(rule.field)
        before = found.pop(rule.field, None)
        if before is not None and before.source is not None and before.source != rule.source:
            unmapped[before.source] = document.at(whole, document.read(before.source))
        if rule.source is None and rule.value is None:
            continue
        try:
            made = _made(whole, rule, "person", BY_PERSON, "a person says so")
        except (Unreadable, ValueError) as error:
            raise Invalid(f"{rule.field}: {error}") from None
        found[made.field] = made
        if rule.source is not None:
            unmapped = _less(whole, unmapped, {document.read(rule.source)})
    return replace(proposal, fields=tuple(found.values()), unmapped=unmapped)


def _made(whole: Any, rule: Rule, by: fields.By, confidence: float, reason: str) -> Field:
    fields.check_name(rule.field)
    if rule.source is None:
        return fields.make(rule.field, rule.value, None, reason, confidence, by)
    value = document.at(whole, document.read(rule.source))
    return fields.make(rule.field, value, rule.source, reason, confidence, by)


def _less(whole: Any, unmapped: dict[str, Any], sources: set[document.Pointer]) -> dict[str, Any]:
    """What is left once these pointers are claimed, too."""
    found: dict[str, Any] = {}
    for written, value in unmapped.items():
        here = document.read(written)
        below = {source[len(here) :] for source in sources if source[: len(here)] == here}
        if any(source == here[: len(source)] for source in sources):
            continue
        left = document.unclaimed(value, below) if below else {"": value}
        found |= {written + pointer: inner for pointer, inner in left.items()}
    return found


def kept(whole: Any, proposal: Proposal) -> tuple[Rule, ...]:
    """What of a proposal differs from what the rules say by themselves: the mapping for next time.

    Values that a person typed belong to this document and are not kept; `kind` and `task` are true of a structure.
    """
    plain = rules.read(whole).found
    found = [
        Rule(field=one.field, source=one.source)
        for one in proposal.fields
        if one.source is not None and (one.field not in plain or plain[one.field].source != one.source)
    ]
    found += [
        Rule(field=one.field, value=one.value)
        for one in proposal.fields
        if one.source is None and one.by == "person" and one.field in ("kind", "task")
    ]
    named = {one.field for one in proposal.fields}
    return (*found, *(Rule(field=name) for name in plain if name not in named))
