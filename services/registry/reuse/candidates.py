"""Which versions are near what somebody wants: the interface that a search implements, and the catalog's search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.registry.reuse.wishes import Wish
from services.registry.search.asking import Is
from services.registry.search.engine import Engine
from services.registry.search.facts import term
from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class Near:
    """A version by its order of registration; `relevance` from 0 to 1, `why` what it was found by."""

    number: int
    relevance: float
    why: tuple[str, ...]


class Candidates(Protocol):
    """Finds versions of a wish's kind that are near its purpose, nearest first; none that is yanked."""

    async def near(self, tx: Transaction, wish: Wish, most: int) -> list[Near]: ...


class BySearch:
    """By the words of the purpose, rare ones more than common ones, and by the task, in the index of search."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def near(self, tx: Transaction, wish: Wish, most: int) -> list[Near]:
        more = [] if wish.task is None else [term("task", wish.task)]
        found = await self._engine.near(tx, wish.purpose, more, Is("kind", (wish.kind,)), most)
        return [Near(*one) for one in found]
