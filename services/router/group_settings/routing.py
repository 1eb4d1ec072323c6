"""How a group's requests find who answers them, beyond the weights."""

from __future__ import annotations

from typing import ClassVar

from services.router.group_settings.base import Section


class Routing(Section):
    """How a group's requests find who answers them, beyond the weights."""

    section: ClassVar[str] = "routing"
