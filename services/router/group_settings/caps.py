"""How much of a group a caller may use, and who may call it at all."""

from __future__ import annotations

from typing import ClassVar

from services.router.group_settings.base import Section


class Caps(Section):
    """How much of a group a caller may use, and who may call it at all."""

    section: ClassVar[str] = "caps"
