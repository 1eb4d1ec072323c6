"""The index as one transaction sees it: what was folded, from memory as far as it is there, and the log on top.

The transaction must be REPEATABLE READ, so that terms that are read one after the other are of one moment.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from services.registry.search.asking import Pattern, prefix
from services.registry.search.bitmaps import (
    Floats,
    Numbers,
    Places,
    array_of,
    bitmap_of,
    bitmap_of_marked,
    of_block,
    split,
    union,
    unpack_numbers,
)
from services.registry.search.cache import Cache
from services.registry.search.errors import TooBroad
from services.registry.search.folding import LABEL
from shared.db.database import Transaction

MOST_PENDING = 10_000
"""Changes that a query reads beside what is folded; with more the worker is behind, and the answer says so."""
MOST_TERMS = 2_000
"""Terms that one pattern may stand for."""
MOST_SCANNED = 5_000
"""Terms of a field among which facets look for the most common."""
MOST_LIKE = 100_000
"""Values of a field that a pattern is tried on; those that begin otherwise than it does are not."""
LAST_CHARACTER = "\U0010ffff"
OVERHEAD = 200

IDS = frozenset({"label", "meaning"})
"""Fields whose numbers are ids, by which tables are looked up."""
Column = dict[int, tuple[Places, Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """One change that is not folded."""

    id: int
    number: int
    gone: frozenset[str]
    come: frozenset[str]
    numbers: Mapping[str, float | None]

    @property
    def label(self) -> str | None:
        return next((term.removeprefix(LABEL) for term in self.come if term.startswith(LABEL)), None)


@dataclass(frozen=True, slots=True)
class Kept:
    """Something as it was at a generation."""

    generation: int
    value: Any


@dataclass(frozen=True, slots=True)
class Names:
    """The labels of a workspace: by id (from 1), and the place of each in their order."""

    by_id: tuple[str, ...]
    ordered: list[str]
    rank: npt.NDArray[np.float64]


class Reader:
    """Opens views. `queries` are those of this package."""

    def __init__(self, queries: Any, cache: Cache) -> None:
        self.queries = queries
        self.cache = cache

    async def open(self, tx: Transaction) -> View:
        """The index as the transaction sees it."""
        row = await self.queries.state(tx.connection, workspace=tx.workspace, most=MOST_PENDING + 1)
        ids: list[int] = row["pending"]
        pending = await self._pending(tx, ids[:MOST_PENDING])
        return View(
            self, tx, row["generation"], row["labels"], row["meanings"], pending, behind=len(ids) > MOST_PENDING
        )

    async def _pending(self, tx: Transaction, ids: list[int]) -> list[Change]:
        key = (tx.workspace, "pending")
        known: dict[int, Change] = self.cache.get(key) or {}
        if not ids:
            return []
        missing = [id for id in ids if id not in known]
        if missing:
            found = {id: known[id] for id in ids if id in known}
            async for row in self.queries.changes(tx.connection, workspace=tx.workspace, ids=missing):
                found[row["id"]] = Change(
                    row["id"], row["number"], frozenset(row["gone"]), frozenset(row["come"]),
                    dict(zip(row["fields"], row["numbers"], strict=True)),
                )  # fmt: skip
            self.cache.put(key, found, 3_000 * len(found))
            known = found
        return [known[id] for id in ids if id in known]  # unless it is not of one moment, and it was folded meanwhile


@dataclass
class View:
    """Load what a question needs, then ask: loading is awaited, asking is not."""

    reader: Reader
    tx: Transaction
    generation: int
    labels: int
    meanings: int
    pending: list[Change]
    behind: bool
    _terms: dict[str, BitMap] = field(default_factory=dict)
    _columns: dict[str, Column] = field(default_factory=dict)
    _patterns: dict[tuple[str, str, bool], list[str]] = field(default_factory=dict)
    _labels_like: dict[tuple[str, bool], npt.NDArray[np.int64]] = field(default_factory=dict)
    _names: Names | None = None
    answers: dict[Any, BitMap] = field(default_factory=dict)
    """What each comparison of a question found."""

    # -- loading

    async def load_terms(self, terms: Iterable[str]) -> None:
        """The bitmaps of these terms, from memory or from the table, with the log on top."""
        asked = {term for term in terms if term not in self._terms}
        if not asked:
            return
        base = await self._folded_terms(asked)
        for term, (came, left) in self._over(asked).items():
            base[term] = (base[term] - left) | came
        self._terms.update(base)

    async def _folded_terms(self, asked: set[str]) -> dict[str, BitMap]:
        found: dict[str, BitMap] = {}
        stale: dict[str, Kept | None] = {}
        for term in asked:
            kept = self._kept("term", term)
            if kept is not None and kept.generation == self.generation:
                found[term] = kept.value
            else:
                stale[term] = kept
        if not stale:
            return found
        since = [kept.generation if kept else 0 for kept in stale.values()]
        rows: dict[str, list[Any]] = {term: [] for term in stale}
        async for row in self.reader.queries.postings_since(
            self.tx.connection, workspace=self.tx.workspace, terms=list(stale), generations=since
        ):
            rows[row["term"]].append(row)
        for term, kept in stale.items():
            bitmap = kept.value if kept else BitMap()
            if rows[term]:
                bitmap = BitMap(bitmap)
                for row in rows[term]:
                    bitmap.remove_range(*of_block(row["block"]))
                bitmap |= union(BitMap.deserialize(row["bitmap"]) for row in rows[term])
            found[term] = bitmap
            self._keep("term", term, bitmap, _size(bitmap))
        return found

    def _over(self, asked: set[str]) -> dict[str, tuple[BitMap, BitMap]]:
        """What the log says of these terms; the last word counts."""
        found: dict[str, dict[int, bool]] = {}
        for change in self.pending:
            for term in asked & change.gone:
                found.setdefault(term, {})[change.number] = False
            for term in asked & change.come:
                found.setdefault(term, {})[change.number] = True
        return {
            term: (BitMap(n for n, here in said.items() if here), BitMap(n for n, here in said.items() if not here))
            for term, said in found.items()
        }

    async def load_columns(self, fields: Iterable[str]) -> None:
        """The numbers of these fields, by block."""
        stale: dict[str, Kept | None] = {}
        for name in fields:
            if name in self._columns:
                continue
            kept = self._kept("column", name)
            if kept is not None and kept.generation == self.generation:
                self._columns[name] = kept.value
            else:
                stale[name] = kept
        if not stale:
            return
        since = [kept.generation if kept else 0 for kept in stale.values()]
        columns: dict[str, Column] = {name: dict(kept.value) if kept else {} for name, kept in stale.items()}
        async for row in self.reader.queries.measured_since(
            self.tx.connection, workspace=self.tx.workspace, fields=list(stale), generations=since
        ):
            places, values = unpack_numbers(row["body"])
            columns[row["field"]][row["block"]] = places, values.astype(np.int64) if row["field"] in IDS else values
        for name, column in columns.items():
            self._columns[name] = column
            size = sum(10 * len(places) + OVERHEAD for places, _ in column.values())
            self._keep("column", name, column, size)

    async def load_pattern(self, of: str, pattern: str, any_case: bool) -> None:
        """The terms of a field, or the labels, that fit a pattern. Raises TooBroad."""
        if of == "name":
            await self._load_labels_like(pattern, any_case)
            await self.load_columns(["label"])
            return
        first = f"{of}="
        begins = first if any_case else first + prefix(pattern)
        row = await self.reader.queries.terms_like(
            self.tx.connection, workspace=self.tx.workspace, first=begins, last=begins + LAST_CHARACTER,
            skipped=len(first), pattern=pattern, any_case=any_case, most=MOST_TERMS + 1, most_scanned=MOST_LIKE + 1,
        )  # fmt: skip
        found: list[str] = row["terms"]
        if len(found) > MOST_TERMS:
            raise TooBroad(f"more than {MOST_TERMS:,} values of {of} fit {pattern!r}; narrow it")
        if row["scanned"] > MOST_LIKE:
            raise TooBroad(
                f"{of} has more than {MOST_LIKE:,} values to try {pattern!r} on; say how they begin, by LIKE"
            )
        fits = Pattern(pattern, any_case=any_case, ascii_case=True).fits
        found += {
            term
            for change in self.pending
            for term in change.come
            if term.startswith(first) and fits(term[len(first) :])
        } - set(found)  # fmt: skip
        self._patterns[of, pattern, any_case] = found
        await self.load_terms(found)

    async def _load_labels_like(self, pattern: str, any_case: bool) -> None:
        key = f"{any_case}{pattern}"
        kept = self._kept("like", key, self.labels)
        if kept is None or kept.generation < self.labels:
            after = kept.generation if kept else 0
            rows = self.reader.queries.labels_like(
                self.tx.connection, workspace=self.tx.workspace, after=after, any_case=any_case,
                pattern=pattern.casefold() if any_case else pattern,
            )  # fmt: skip
            ids = np.array([row["id"] async for row in rows], np.int64)
            found = np.concatenate([kept.value, ids]) if kept else ids
            self.reader.cache.put((self.tx.workspace, "like", key), Kept(self.labels, found), found.nbytes + OVERHEAD)
            kept = Kept(self.labels, found)
        self._labels_like[pattern, any_case] = kept.value

    async def load_names(self) -> None:
        """All labels in their order, and whose they are."""
        await self.load_columns(["label"])
        kept = self._kept("names", "", self.labels)
        if kept is None or kept.generation < self.labels:
            before: Names | None = kept.value if kept else None
            rows = self.reader.queries.labels_after(
                self.tx.connection, workspace=self.tx.workspace, after=kept.generation if kept else 0
            )
            new = [row["label"] async for row in rows]
            by_id = (before.by_id if before else ()) + tuple(new)
            ordered = sorted([*(before.ordered if before else ()), *new])  # two runs, of which the first is in order
            place = {label: float(at) for at, label in enumerate(ordered)}
            rank = np.fromiter((0.0, *(place[label] for label in by_id)), np.float64, len(by_id) + 1)
            names = Names(by_id, ordered, rank)
            size = sum(len(label) + 80 for label in by_id) + rank.nbytes
            kept = Kept(self.labels, names)
            self.reader.cache.put((self.tx.workspace, "names", ""), kept, size)
        self._names = kept.value

    def _kept(self, what: str, key: str, now: int | None = None) -> Kept | None:
        """What is in memory, unless a later transaction than this one put it there."""
        found: Kept | None = self.reader.cache.get((self.tx.workspace, what, key))
        return None if found is None or found.generation > (self.generation if now is None else now) else found

    def _keep(self, what: str, key: str, value: Any, size: int) -> None:
        there: Kept | None = self.reader.cache.get((self.tx.workspace, what, key))
        if there is None or there.generation < self.generation:
            self.reader.cache.put((self.tx.workspace, what, key), Kept(self.generation, value), size + OVERHEAD)

    async def common_terms(self, of: str, most: int) -> list[str]:
        """The most common terms of a field, and those that came in the log."""
        kept = self._kept("common", of)
        if kept is None or kept.generation != self.generation:
            rows = self.reader.queries.terms_between(
                self.tx.connection, workspace=self.tx.workspace, first=f"{of}=", last=f"{of}>", most=MOST_SCANNED
            )
            terms = [row["term"] async for row in rows]
            self._keep("common", of, terms, sum(len(term) + 80 for term in terms))
            kept = Kept(self.generation, terms)
        new = sorted(self.terms_over(f"{of}=") - set(kept.value)) if self.pending else []
        return [*new, *kept.value][:most]

    # -- asking

    def term(self, term: str) -> BitMap:
        """The versions that a loaded term finds. Not to be changed."""
        return self._terms[term]

    def has_term(self, term: str, number: int) -> bool:
        """Whether a version has a term, as far as that was loaded."""
        return term in self._terms and number in self._terms[term]

    def matching(self, of: str, pattern: str, any_case: bool) -> BitMap:
        """The versions whose field fits a loaded pattern."""
        if of != "name":
            return union(self._terms[term] for term in self._patterns[of, pattern, any_case])
        ids = self._labels_like[pattern, any_case]
        fitting = np.zeros(self.labels + 1, np.bool_)
        fitting[ids] = True
        found = self.with_id("label", fitting)
        fits = Pattern(pattern.casefold() if any_case else pattern, any_case=False).fits
        for number, label in self._labelled().items():
            (found.add if fits(label.casefold() if any_case else label) else found.discard)(number)
        return found

    def comparing(self, of: str, operator: str, value: float) -> BitMap:
        """The versions that have a number which compares so."""
        compare = COMPARE[operator]
        found = bitmap_of_marked({
            block: (places, compare(values, value)) for block, (places, values) in self._columns[of].items()
        })  # fmt: skip
        for number, said in self.numbers_over(of).items():
            (found.add if said is not None and compare(said, value) else found.discard)(number)
        return found

    def having(self, of: str) -> BitMap:
        """The versions that have a number of a loaded field."""
        found = bitmap_of({block: places for block, (places, _) in self._columns[of].items()})
        for number, said in self.numbers_over(of).items():
            (found.add if said is not None else found.discard)(number)
        return found

    def with_id(self, of: str, fitting: npt.NDArray[np.bool_]) -> BitMap:
        """The versions whose id is one of these, as far as it was folded; `fitting` has a place for every id."""
        column = self._columns[of]
        return bitmap_of_marked({block: (places, fitting[ids]) for block, (places, ids) in column.items()})

    def numbers_over(self, of: str) -> dict[int, float | None]:
        """What the log says of a field, by number."""
        return {change.number: change.numbers[of] for change in self.pending if of in change.numbers}

    def _labelled(self) -> dict[int, str]:
        return {change.number: label for change in self.pending if (label := change.label) is not None}

    def values(self, of: str, among: BitMap) -> tuple[Numbers, Floats]:
        """Which of these versions have a number of a loaded field, ascending, and that number."""
        return self._valued(self._columns[of], among, self.numbers_over(of))

    def name_ranks(self, among: BitMap) -> tuple[Numbers, Floats]:
        """The place of each version's label in the order of labels; one that is not folded stands between two."""
        assert self._names is not None
        numbers, ids = self._valued(self._columns["label"], among, dict.fromkeys(self._labelled()))
        ranks = self._names.rank[ids.astype(np.int64, copy=False)]
        over = {n: self.rank_of(label) for n, label in self._labelled().items() if n in among}
        if not over:
            return numbers, ranks
        return (
            np.concatenate([numbers, np.fromiter(over, np.uint32, len(over))]),
            np.concatenate([ranks, np.fromiter(over.values(), np.float64, len(over))]),
        )

    def rank_of(self, label: str) -> float:
        """The place of a label; between two places where it is not among them."""
        assert self._names is not None
        place = bisect_left(self._names.ordered, label)
        there = place < len(self._names.ordered) and self._names.ordered[place] == label
        return float(place) if there else place - 0.5

    def labels_of(self, numbers: Iterable[int]) -> dict[int, str]:
        """The labels of a few versions."""
        assert self._names is not None
        over, asked = self._labelled(), list(numbers)
        found, ids = self.values("label", BitMap(asked))
        folded = {int(n): self._names.by_id[int(id) - 1] for n, id in zip(found, ids, strict=True)}
        return {number: over.get(number) or folded.get(number, "") for number in asked}

    def _valued(self, column: Column, among: BitMap, over: Mapping[int, float | None]) -> tuple[Numbers, Floats]:
        numbers: list[Numbers] = []
        values: list[Floats] = []
        folded = among - BitMap(over) if over else among
        for block, wanted in split(array_of(folded)):
            if block not in column:
                continue
            places, here = column[block]
            marked = np.zeros(1 << 16, np.bool_)
            marked[wanted] = True
            kept = marked[places]
            numbers.append(places[kept].astype(np.uint32) + np.uint32(of_block(block)[0]))
            values.append(here[kept])
        said = {number: value for number, value in over.items() if value is not None and number in among}
        numbers.append(np.fromiter(said, np.uint32, len(said)))
        values.append(np.fromiter(said.values(), np.float64, len(said)))
        return np.concatenate(numbers), np.concatenate(values)

    def terms_over(self, first: str) -> set[str]:
        """Terms with this beginning that came in the log."""
        return {term for change in self.pending for term in change.come if term.startswith(first)}


COMPARE: dict[str, Any] = {
    "<": np.less, "<=": np.less_equal, "=": np.equal, "!=": np.not_equal, ">=": np.greater_equal, ">": np.greater,
}  # fmt: skip


def _size(bitmap: BitMap) -> int:
    return min(2 * len(bitmap), (int(bitmap.max()) >> 3) + 1 if bitmap else 0) + OVERHEAD
