"""What becomes of a group's rows: how long they stay, what of a request they keep, whose consent they ask."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.router.group_settings.base import Section
from services.router.group_settings.fields import NUMBER_COLUMNS, read_field

Action = Literal["drop", "hash", "encrypt", "mask"]
Level = Literal["keep", "minimise", "none"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldRule(_Part):
    """What a row keeps of a field: nothing, its HMAC with the group's own salt, a ciphertext, or a text without
    e-mail addresses, telephone, card and account numbers.

    `field` is a column or a path below a JSON column: `unit`, `features.AGEP`, `input.messages[*].content`. A rule of
    `features` holds for the tensors of the same name in `input` too, and one of `unit` wherever `input` repeats it.
    """

    field: Annotated[str, Field(max_length=200)]
    action: Action

    @field_validator("field")
    @classmethod
    def is_a_field(cls, value: str) -> str:
        read_field(value)
        return value

    @model_validator(mode="after")
    def fits(self) -> FieldRule:
        if read_field(self.field).column in NUMBER_COLUMNS and self.action != "drop":
            raise ValueError(f"{self.field} is a number; it can only be dropped")
        return self


class Consent(_Part):
    """Where a request says what may be kept of it: a header, and a value below its JSON body (`metadata.consent`).

    `none`, `no`, `false` and whatever is not known keep what operation needs: ids, time, version, status, latency.
    `minimise` keeps no content either, but who asked; `keep`, `yes` and `true` keep what the field rules say.
    """

    header: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9-]+$")] = "x-mintmark-consent"
    path: Annotated[str | None, Field(max_length=200)] = None
    when_absent: Level = "keep"

    @field_validator("path")
    @classmethod
    def is_a_path(cls, value: str | None) -> str | None:
        if value is not None:
            read_field(f"input.{value}")
        return value


class Rows(Section):
    """`when_spool_full`: what a request gets that has no room for its row: a 503, or an answer without a row, counted.

    Rows older than `retention_days` go, a day at a time; None keeps them for ever. `at_deletion` is how they go, then
    and when the group is deleted: `archive` keeps them as Parquet in the artefact store; `drop` does not, and a second
    person has to agree to the group's deletion.
    """

    section: ClassVar[str] = "rows"

    when_spool_full: Literal["refuse", "drop"] = "refuse"
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    at_deletion: Literal["archive", "drop"] = "archive"
    fields: Annotated[tuple[FieldRule, ...], Field(max_length=100)] = ()
    consent: Consent = Consent()

    @property
    def needs_keys(self) -> frozenset[str]:
        """`salt` for hashes, `data` for ciphertexts."""
        kinds = {"hash": "salt", "encrypt": "data"}
        return frozenset(kinds[rule.action] for rule in self.fields if rule.action in kinds)
