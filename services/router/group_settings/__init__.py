"""What groups are told beside who serves them: sections, each with defaults, each a log with who, why and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from services.router.group_settings.base import Section
from services.router.group_settings.caps import Caps
from services.router.group_settings.guardrails import Guardrails
from services.router.group_settings.routing import Routing
from services.router.group_settings.rows import Rows

__all__ = ["SECTIONS", "Caps", "GroupSettings", "Guardrails", "Routing", "Rows", "Section"]

SECTIONS: dict[str, type[Section]] = {one.section: one for one in (Routing, Rows, Guardrails, Caps)}

S = TypeVar("S", bound=Section)


class GroupSettings:
    """All sections of one group; what was never set has its defaults."""

    def __init__(self, stored: Mapping[str, Any] | None = None) -> None:
        """`stored` is `{section: value}`. Raises pydantic.ValidationError for what no version of ours wrote."""
        self._stored = {
            name: SECTIONS[name].model_validate(value) for name, value in (stored or {}).items() if name in SECTIONS
        }

    def of(self, kind: type[S]) -> S:
        found = self._stored.get(kind.section)
        return found if isinstance(found, kind) else kind()

    def all(self) -> dict[str, Section]:
        return {name: self._stored.get(name) or kind() for name, kind in SECTIONS.items()}
