"""What becomes of a group's rows."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from services.router.group_settings.base import Section


class Rows(Section):
    """`when_spool_full`: what a request gets that has no room for its row: a 503, or an answer without a row, counted.

    Rows older than `retention_days` go, a day at a time; None keeps them for ever.
    """

    section: ClassVar[str] = "rows"

    when_spool_full: Literal["refuse", "drop"] = "refuse"
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
