"""A caller whose identity was proven, by key or by token."""

from __future__ import annotations

from dataclasses import dataclass

from shared.events.base import Actor


@dataclass(frozen=True, slots=True)
class Principal:
    """`id` is unique in its workspace, e.g. `user:ada`; `key_id` names the API key where one was used."""

    id: str
    workspace: str
    roles: frozenset[str]
    key_id: str | None = None

    @property
    def actor(self) -> Actor:
        """The caller as events name it."""
        return Actor(id=self.id, proven=True)
