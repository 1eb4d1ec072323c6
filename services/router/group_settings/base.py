"""A section: one thing that a group is told beside who serves it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen and strict: a field that is not known is refused, since it may be a misspelt one.

    Every field has a default, and the defaults are what holds for a group that was never told anything. What was stored
    must stay readable: a field may be added, never renamed or narrowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    section: ClassVar[str]
    """Its name in the API and in the table."""
