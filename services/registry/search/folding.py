"""Folding the log into bitmaps, numbers and ids. A batch is one transaction: a crash loses and doubles nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyroaring import BitMap

from services.registry.search.bitmaps import (
    block_of,
    of_block,
    pack_numbers,
    packed,
    unpack_numbers,
    with_changes,
)
from shared.db.database import Transaction
from shared.ids import sha256

MOST = 2_000
LABEL = "label="

Row = Mapping[str, Any]
Cell = tuple[str, int]
"""A term or a field, and a block."""
Measured = tuple[str, int, float | None]
"""A field, the version's number, and the value."""


class Fold:
    """`queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def workspaces(self, tx: Transaction) -> list[str]:
        """Where there is something to fold; for a transaction that sees every workspace."""
        return [row["workspace"] async for row in self._queries.workspaces_with_changes(tx.connection)]

    async def fold(self, tx: Transaction, most: int = MOST) -> int:
        """Fold the workspace's oldest changes; returns how many, 0 when another folder is at it."""
        if not await self._queries.lock_fold(tx.connection, workspace=tx.workspace):
            return 0
        rows = [row async for row in self._queries.take_changes(tx.connection, workspace=tx.workspace, most=most)]
        if not rows:
            return 0
        state = await self._queries.next_generation(tx.connection, workspace=tx.workspace)
        labels = await self._ids(tx, "label", _labels(rows).values(), state["labels"])
        meanings = await self._ids(tx, "meaning", _gists(rows).values(), state["meanings"])
        await self._queries.put_ids(
            tx.connection, workspace=tx.workspace, labels=max(state["labels"], *labels.values(), 0),
            meanings=max(state["meanings"], *meanings.values(), 0),
        )  # fmt: skip
        await self._post(tx, rows, state["generation"])
        numbers = numbers_in(rows)
        numbers += [("label", number, float(labels[label])) for number, label in _labels(rows).items()]
        numbers += [("meaning", number, float(meanings[gist])) for number, gist in _gists(rows).items()]
        await self._measure(tx, numbers, state["generation"])
        return len(rows)

    async def _ids(self, tx: Transaction, of: str, found: Iterable[str], last: int) -> dict[str, int]:
        """The id of every label or gist, given to those that have none, in the order that they came in."""
        texts = list(dict.fromkeys(found))
        if not texts:
            return {}
        if of == "label":
            rows = self._queries.label_ids(tx.connection, workspace=tx.workspace, labels=texts)
            known = {row["label"]: row["id"] async for row in rows}
        else:
            digests = {sha256(text.encode()): text for text in texts}
            rows = self._queries.meaning_ids(tx.connection, workspace=tx.workspace, digests=list(digests))
            known = {digests[row["digest"]]: row["id"] async for row in rows}
        new = [text for text in texts if text not in known]
        ids = range(last + 1, last + 1 + len(new))
        if of == "label":
            await self._queries.put_labels(
                tx.connection, workspace=tx.workspace, ids=list(ids), labels=new,
                folded=[label.casefold() for label in new],
            )  # fmt: skip
        else:
            await self._queries.put_meanings(
                tx.connection, workspace=tx.workspace, ids=list(ids), gists=new,
                digests=[sha256(text.encode()) for text in new],
            )  # fmt: skip
        return known | dict(zip(new, ids, strict=True))

    async def _post(self, tx: Transaction, rows: Sequence[Row], generation: int) -> None:
        changed = terms_in(rows)
        keys = list(changed)
        terms = [term for term, _ in keys]
        asked = {"terms": terms, "blocks": [block for _, block in keys]}
        there: dict[Cell, BitMap] = {
            (row["term"], row["block"]): BitMap.deserialize(row["bitmap"])
            async for row in self._queries.postings_at(tx.connection, workspace=tx.workspace, **asked)
        }
        bitmaps, more = [], dict.fromkeys(terms, 0)
        for key, (came, left) in changed.items():
            before = there.get(key, BitMap())
            after = (before - left) | came
            more[key[0]] += len(after) - len(before)
            bitmaps.append(packed(after))
        await self._queries.put_postings(
            tx.connection, workspace=tx.workspace, generation=generation, **asked, bitmaps=bitmaps
        )
        counted = {term: count for term, count in more.items() if count}
        await self._queries.count_terms(
            tx.connection, workspace=tx.workspace, terms=list(counted), more=list(counted.values())
        )
        fewer = [term for term, count in counted.items() if count < 0]
        if fewer:
            await self._queries.forget_terms(tx.connection, workspace=tx.workspace, terms=fewer)

    async def _measure(self, tx: Transaction, numbers: Iterable[Measured], generation: int) -> None:
        changed: dict[Cell, dict[int, float | None]] = {}
        for field, number, value in numbers:
            block = block_of(number)
            changed.setdefault((field, block), {})[number - of_block(block)[0]] = value
        if not changed:
            return
        asked = {"fields": [field for field, _ in changed], "blocks": [block for _, block in changed]}
        there = {
            (row["field"], row["block"]): row["body"]
            async for row in self._queries.measured_at(tx.connection, workspace=tx.workspace, **asked)
        }
        bodies = [
            pack_numbers(*with_changes(*unpack_numbers(there.get(key, b"")), changes))
            for key, changes in changed.items()
        ]
        await self._queries.put_measured(
            tx.connection, workspace=tx.workspace, generation=generation, **asked, bodies=bodies
        )


def terms_in(rows: Iterable[Row]) -> dict[Cell, tuple[BitMap, BitMap]]:
    """Which numbers came to each term and block, and which left it; the last word counts."""
    came: dict[Cell, dict[int, bool]] = {}
    for row in rows:
        number, block = row["number"], block_of(row["number"])
        for terms, there in ((row["gone"], False), (row["come"], True)):
            for term in terms:
                if term.startswith(LABEL):
                    continue  # a number by field
                came.setdefault((term, block), {})[number] = there
    return {
        key: (BitMap(n for n, there in found.items() if there), BitMap(n for n, there in found.items() if not there))
        for key, found in came.items()
    }


def numbers_in(rows: Iterable[Row]) -> list[Measured]:
    """Field, number and value, in order."""
    return [
        (field, row["number"], value)
        for row in rows
        for field, value in zip(row["fields"], row["numbers"], strict=True)
    ]


def _labels(rows: Iterable[Row]) -> dict[int, str]:
    return {row["number"]: term.removeprefix(LABEL) for row in rows for term in row["come"] if term.startswith(LABEL)}


def _gists(rows: Iterable[Row]) -> dict[int, str]:
    return {row["number"]: row["gist"] for row in rows if row["gist"]}
