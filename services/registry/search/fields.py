"""What can be asked of: the fields of a filter, their other names, and what each takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from services.registry.domain.assets import STAGES
from services.registry.search.facts import KEYED, keyed, milliseconds
from shared.events.base import KINDS

Kind = Literal["text", "number", "time"]

TEXTS = {
    "kind": "kind", "name": "name", "stage": "stage", "current_stage": "stage", "task": "task", "licence": "licence",
    "license": "licence", "author": "author", "user_id": "author", "run_id": "run_id", "risk": "risk", "cost": "cost",
    "gate": "gate", "approval": "approval", "alias": "alias", "aliases": "alias", "group": "group",
    "dataset": "dataset", "source_path": "source_path", "source": "source_path", "yanked": "yanked",
}  # fmt: skip
NUMBERS = {"version": "version", "version_number": "version"}
TIMES = {
    "created": "created", "registered_at": "created", "creation_timestamp": "created", "creation_time": "created",
    "updated": "updated", "updated_at": "updated", "last_updated_timestamp": "updated",
}  # fmt: skip
KEYS = {
    "tag": "tag", "tags": "tag", "param": "param", "params": "param", "parameter": "param", "parameters": "param",
    "metric": "metric", "metrics": "metric", "measure": "measure", "measures": "measure", "evaluation": "measure",
    "evaluations": "measure",
}  # fmt: skip
OWN = ("attribute", "attributes", "attr")

CHOICES = {
    "kind": KINDS,
    "stage": STAGES,
    "risk": ("minimal", "limited", "high", "prohibited"),
    "cost": ("low", "medium", "high"),
    "gate": ("pass", "review", "reject"),
    "approval": ("approved", "rejected"),
}
OTHER_STAGES = {"archived": "retired", "none": "development"}
"""What MLflow calls two of the stages."""

ABSENT_FITS = frozenset({keyed("tag", "mlflow.prompt.is_prompt")})
"""`!=` wants the field to be there, but for the tag by which MLflow's client leaves prompts out."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field that was named in a filter."""

    name: str
    kind: Kind

    @property
    def absent_fits(self) -> bool:
        """Whether a version without the field is one where it is not equal."""
        return self.name in ABSENT_FITS or self.name == "yanked"


def field(named: str, key: str | None) -> Field | None:
    """The field of a name, and of a key where one follows; None for one that is not there."""
    named = named.lower()
    if key is not None and named in OWN:
        return field(key, None) if key.lower() not in KEYS else None
    if key is not None:
        if named not in KEYS or not key:
            return None
        of = KEYS[named]
        return Field(keyed(of, key), "number" if of in KEYED[2:] else "text")
    if named in TEXTS:
        return Field(TEXTS[named], "text")
    if named in NUMBERS:
        return Field(NUMBERS[named], "number")
    return Field(TIMES[named], "time") if named in TIMES else None


def choice(of: str, value: str) -> str | None:
    """The value as it is kept, of a field that takes certain ones; None for another one."""
    if of not in CHOICES:
        return value
    lowered = value.lower()
    lowered = OTHER_STAGES.get(lowered, lowered) if of == "stage" else lowered
    return lowered if lowered in CHOICES[of] else None


def moment(text: str) -> float | None:
    """Milliseconds of a time that is written out: 2026-11-20, 2026-11-20T10:00:00Z; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    try:
        return milliseconds(at if at.tzinfo else at.replace(tzinfo=UTC))
    except (OverflowError, ValueError):
        return None


def known() -> str:
    """The fields, for whoever named another one."""
    return ", ".join([*dict.fromkeys([*TEXTS.values(), *NUMBERS.values(), *TIMES.values()])]) + (
        ", tags.<key>, params.<key>, metrics.<name> and measures.<name>"
    )
