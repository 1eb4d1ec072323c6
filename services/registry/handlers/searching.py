"""Search: a filter, words or a question in plain words, answered with versions, why they were found, and facets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.registry.handlers.reading import Reading, Standing
from services.registry.search.asked import Asked, Hits, Why
from services.registry.search.engine import Engine
from services.registry.search.ordering import Row
from services.registry.search.phrasing import Phrasing, Understood
from services.registry.search.snippets import snippet
from shared.db.database import Database
from shared.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Result:
    """A version of the answer, and why it is there."""

    standing: Standing
    why: Why


@dataclass(frozen=True, slots=True)
class Answer:
    """A page of results; `last` is what the next one continues after."""

    results: Sequence[Result]
    hits: Hits
    last: Row | None


class Searching:
    """Reads the index and the versions in one transaction that sees one moment."""

    def __init__(self, database: Database, engine: Engine, phrasing: Phrasing, reading: Reading) -> None:
        self._database = database
        self._engine = engine
        self._phrasing = phrasing
        self._reading = reading

    async def understood(self, caller: Principal, question: str) -> Understood:
        """A question in plain words as a filter and a ranking."""
        async with self._database.begin_reading(caller.workspace) as tx:
            vocabulary = await self._phrasing.vocabulary(tx)
        return await self._phrasing.understand(question, vocabulary)

    async def search(self, caller: Principal, asked: Asked, after: Row | None, size: int) -> Answer:
        """A page of so many versions. Raises Invalid, TooBroad."""
        async with self._database.begin_reading(caller.workspace) as tx:
            hits = await self._engine.search(tx, asked, after, size + 1)
            standings = await self._reading.standings_of(tx, [hit.number for hit in hits.items])
        results = []
        for hit in hits.items:
            standing = standings.get(hit.number)
            if standing is not None:
                results.append(Result(standing, _shown(hit.why, standing)))
        last = Row(hits.items[-1].number, hits.items[-1].key) if hits.items and hits.more else None
        return Answer(results, hits, last)


def _shown(why: Why, standing: Standing) -> Why:
    """With the text around the words that were asked for."""
    version = standing.version
    for text in (version.description, version.title) if why.words else ():
        found = snippet(text, why.words)
        if found is not None:
            return replace(why, snippet=found)
    return why
