"""A search from question to page, on one view of the index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pyroaring import BitMap

from services.registry.search import evaluating, facets, ordering
from services.registry.search.asked import Asked, Hit, Hits, Why
from services.registry.search.asking import Is, Not, Question, Word, both, leaves
from services.registry.search.bitmaps import Floats, array_of, bitmap_of_numbers, union
from services.registry.search.evaluating import of_leaf
from services.registry.search.facts import ALL, term
from services.registry.search.meaning import NOTHING, Meanings, Ranking
from services.registry.search.ordering import Row
from services.registry.search.view import Reader, View
from shared.db.database import Transaction
from shared.errors import Invalid

YANKED = Is("yanked", ("true",))
MOST_RANKED = 1_000
"""Versions that a ranking goes through: nobody reads further down, and the filter finds the rest."""
MOST_WORDS = 32
FUSION = 60
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): how little the first few ranks differ."""
MOST_SHOWN = 8


class Engine:
    """`queries` are those of this package."""

    def __init__(self, queries: Any, reader: Reader, meanings: Meanings) -> None:
        self._queries = queries
        self._reader = reader
        self._meanings = meanings
        self._stems: dict[str, tuple[str, ...]] = {}

    async def search(self, tx: Transaction, asked: Asked, after: Row | None, most: int) -> Hits:
        """A page of what is asked. The transaction must be of one moment (REPEATABLE READ)."""
        view = await self._reader.open(tx)
        stems = await self._stemmed(tx, asked.words) if asked.words else ()
        question = self._question(asked, stems)
        await evaluating.load(view, question)
        counted = await facets.load(view, asked.facets)
        ranked = bool(asked.words) and (asked.mode != "text" or asked.relevance)
        notes: tuple[str, ...] = ()
        # Nothing but stop words and signs finds nothing.
        nothing = bool(asked.words) and asked.mode == "text" and not stems
        found = BitMap() if nothing else evaluating.evaluate(view, question)
        similar: Ranking = NOTHING
        if ranked:
            ranking, similar, notes = await self._ranked(view, asked, stems, found)
            if asked.mode != "text":
                found = bitmap_of_numbers(np.sort(ranking[0]))
            page = _ranked_page(ranking, after, most)
        else:
            await ordering.load(view, asked.order)
            page = ordering.page(view, found, asked.order, after, most)
        fitting = _fitting(view, asked.filter)
        near = dict(zip(*(part.tolist() for part in similar), strict=True)) if len(similar[0]) else {}
        items = [
            Hit(row.number, row.key, _why(view, row.number, fitting, stems, near.get(row.number)))
            for row in page[: most - 1]
        ]
        return Hits(
            items, len(found), len(page) == most, facets.count(view, found, asked.facets, counted),
            complete=not view.behind, notes=notes,
        )  # fmt: skip

    async def near(
        self, tx: Transaction, words: str, more: list[str], within: Question, most: int
    ) -> list[tuple[int, float, tuple[str, ...]]]:
        """Versions within a question that have words of a text or one of more terms, and which ones.

        With the share of all weight that they have, from 0 to 1: a rare term weighs more. The best first, then newest.
        """
        view = await self._reader.open(tx)
        asked = [*(term("word", stem) for stem in await self._stemmed(tx, words)), *more]
        question = both(within, Not(YANKED))
        await evaluating.load(view, question)
        await view.load_terms(asked)
        inside = evaluating.evaluate(view, question)
        having = {one: view.term(one) & inside for one in asked}
        weights = {one: 1 / float(np.log(2 + len(bitmap))) for one, bitmap in having.items()}
        numbers, scores = weighed(having, weights, most)
        best = [(row.number, row.key) for row in _ranked_page((numbers, scores), None, most)]
        total = sum(weights.values()) or 1.0
        told = sorted(asked, key=lambda one: (-weights[one], one))
        return [(n, score / total, tuple(one for one in told if n in having[one])) for n, score in best]

    def _question(self, asked: Asked, stems: tuple[str, ...]) -> Question:
        """With the words of a text, and without yanked versions where nobody asks for them."""
        parts: list[Question] = [asked.filter]
        if asked.mode == "text":
            parts += [Word(stem) for stem in stems]
        if not any(isinstance(leaf, Is) and leaf.field == YANKED.field for leaf in leaves(asked.filter)):
            parts.append(Not(YANKED))
        return both(*parts)

    async def _stemmed(self, tx: Transaction, words: str) -> tuple[str, ...]:
        """The stems of a text, as Postgres makes them; what was asked before is known."""
        if words not in self._stems:
            found = await self._queries.lexemes(tx.connection, text=words)
            if len(self._stems) > 10_000:
                self._stems.clear()
            self._stems[words] = tuple(found[:MOST_WORDS])
        return self._stems[words]

    async def _ranked(
        self, view: View, asked: Asked, stems: tuple[str, ...], found: BitMap
    ) -> tuple[Ranking, Ranking, tuple[str, ...]]:
        """What is found, ranked by the words in its text, its meaning, or both; the ranking by meaning; and notes."""
        by_text: Ranking = NOTHING
        near: Ranking = NOTHING
        notes: tuple[str, ...] = ()
        if asked.mode != "semantic" and stems:
            await view.load_terms({ALL, *(term("word", stem) for stem in stems)})
            by_text = by_words(view, stems, found)
        if asked.mode != "text":
            near, notes = await self._meanings.nearest(view, asked.words, found, MOST_RANKED)
        ranking = by_text if asked.mode == "text" else near if asked.mode == "semantic" else fused(by_text, near)
        return ranking, near, notes


def by_words(view: View, stems: tuple[str, ...], found: BitMap) -> Ranking:
    """Versions with any of the words, by how telling those are that they have: rare words more than common ones."""
    total = len(view.term(ALL)) or 1
    words = {stem: view.term(term("word", stem)) for stem in stems}
    weights = {stem: float(np.log(1 + total / max(1, len(bitmap)))) for stem, bitmap in words.items()}
    return weighed({stem: bitmap & found for stem, bitmap in words.items()}, weights, MOST_RANKED)


def weighed(having: Mapping[str, BitMap], weights: Mapping[str, float], most: int) -> Ranking:
    """The versions with the most weight of what they have; of equal ones the newest."""
    numbers = array_of(union(having.values()))
    scores: Floats = np.zeros(len(numbers))
    for one, bitmap in having.items():
        if bitmap:
            scores[np.searchsorted(numbers, array_of(bitmap))] += weights[one]
    if len(numbers) > most:
        edge = np.partition(scores, len(scores) - most)[len(scores) - most]
        above, level = np.flatnonzero(scores > edge), np.flatnonzero(scores == edge)
        kept = np.concatenate([above, level[len(above) - most :]])
        numbers, scores = numbers[kept], scores[kept]
    return numbers, scores


def fused(*rankings: Ranking) -> Ranking:
    """One ranking of several: a version counts by its places, which unlike scores can be compared. Equals share one."""
    parts = [(numbers, 1 / (FUSION + _places(scores))) for numbers, scores in rankings if len(numbers)]
    if not parts:
        return NOTHING
    numbers, inverse = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    scores: Floats = np.zeros(len(numbers))
    np.add.at(scores, inverse, np.concatenate([part[1] for part in parts]))
    return numbers, scores


def _places(scores: Floats) -> Floats:
    """The place of each score among them, from 1."""
    above = np.searchsorted(np.sort(scores), scores, side="right")
    return (1 + len(scores) - above).astype(np.float64)


def _ranked_page(ranking: Ranking, after: Row | None, most: int) -> list[Row]:
    """The best, equal ones newest first, from a row on; no more than are ranked at all."""
    numbers, scores = ranking[0].astype(np.int64), np.round(ranking[1], 9)
    order = np.lexsort((-numbers, -scores))[:MOST_RANKED]
    if after is not None:
        if isinstance(after.key, str):
            raise Invalid("page_token is not one that was given out here; start without it")
        last = float(after.key or 0)
        order = order[(scores[order] < last) | ((scores[order] == last) & (numbers[order] < after.number))]
    return [Row(int(numbers[at]), float(scores[at])) for at in order[:most]]


def _fitting(view: View, question: Question) -> list[tuple[str, BitMap]]:
    """What each comparison of a filter finds, to tell why a version was found."""
    found = {leaf.text: leaf for leaf in leaves(question) if leaf.text}
    return [(text, of_leaf(view, leaf)) for text, leaf in list(found.items())[:MOST_SHOWN]]


def _why(
    view: View, number: int, fitting: list[tuple[str, BitMap]], stems: tuple[str, ...], similarity: float | None
) -> Why:
    fits = tuple(text for text, bitmap in fitting if number in bitmap)
    words = tuple(stem for stem in stems if view.has_term(term("word", stem), number))
    return Why(fits, words, similarity=None if similarity is None else round(similarity, 4))
