"""What is looked for in a group's requests and answers."""

from __future__ import annotations

from typing import ClassVar

from services.router.group_settings.base import Section


class Guardrails(Section):
    """What is looked for in a group's requests and answers."""

    section: ClassVar[str] = "guardrails"
