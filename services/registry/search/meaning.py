"""Search by meaning: vectors of what versions are about, made beside the traffic, and the nearest of them.

Versions that say the same share one vector. Up to `EXACT_MOST` of them are compared one by one in memory, which takes
3 ms; beyond that pgvector's index gives the nearest, of which the filter keeps its own, and where the filter leaves few
versions those are compared one by one again. Without pgvector more than `EXACT_MOST` are not searched by meaning, and
the answer says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from services.registry.search.bitmaps import Floats, Numbers
from services.registry.search.cache import Cache
from services.registry.search.embedders import Embedder, Vectors
from services.registry.search.view import Kept, View
from shared.db.database import Transaction
from shared.errors import Unavailable

log = logging.getLogger(__name__)

EXACT_MOST = 100_000
FEW = 5_000
"""Versions that a filter leaves, which are compared one by one whatever the workspace's size."""
FIRST, MORE = 500, 2_000
"""Meanings that the index is asked for, and once more where the filter keeps too few of them."""
ENOUGH = 50
BATCH = 1_000
READ = 20_000
MOST_QUESTIONS = 10_000

Ids = npt.NDArray[np.int64]
Ranking = tuple[Numbers, Floats]
"""Versions, and what each is ranked by; in no order."""
NOTHING: Ranking = (np.zeros(0, np.uint32), np.zeros(0))


@dataclass(frozen=True, slots=True)
class Model:
    """A model as far as it embedded a workspace."""

    name: str
    dimensions: int
    reached: int
    indexed: int
    ready: bool


class Meanings:
    """Asks by meaning. `queries` are those of this package; `embedders` by name, the preferred one first."""

    def __init__(self, queries: Any, cache: Cache, embedders: Iterable[Embedder]) -> None:
        self._queries = queries
        self._cache = cache
        self._embedders = {embedder.name: embedder for embedder in embedders}
        self._questions: dict[tuple[str, str], Vectors] = {}
        self._near: bool | None = None

    async def nearest(self, view: View, words: str, among: BitMap, most: int) -> tuple[Ranking, tuple[str, ...]]:
        """Of these versions the ones nearest to the words, with their similarity, and what is to be said about it."""
        model = await self._model(view.tx)
        if model is None:
            return NOTHING, ("nothing is embedded yet: found by words alone",)
        try:
            question = await self._question(model, words)
        except Unavailable as error:
            log.warning("search by words alone", extra={"service": "registry", "error": str(error)[:300]})
            return NOTHING, ("the model that embeds does not answer: found by words alone",)
        await view.load_columns(["meaning"])
        notes = () if model.reached >= view.meanings else ("some texts are not embedded yet",)
        if model.reached <= EXACT_MOST:
            similar = (await self._matrix(view.tx, model)) @ question
            return _best(view, among, np.arange(1, len(similar) + 1), similar, most), notes
        if len(among) <= FEW:
            return _best(view, among, *await self._few(view, model, question, among), most), notes
        if not await self._has_near(view.tx):
            return NOTHING, (f"more than {EXACT_MOST:,} texts and no pgvector: found by words alone",)
        return await self._by_index(view, model, question, among, most), notes

    async def _model(self, tx: Transaction) -> Model | None:
        """The newest model that caught up once and that can be asked; else the one that is furthest."""
        rows = self._queries.embedders(tx.connection, workspace=tx.workspace)
        found = [
            Model(row["model"], row["dimensions"], row["reached"], row["indexed"], row["ready_at"] is not None)
            async for row in rows
        ]
        known = [model for model in found if model.name in self._embedders and model.reached]
        return next((model for model in known if model.ready), max(known, key=lambda one: one.reached, default=None))

    async def _question(self, model: Model, words: str) -> Vectors:
        key = (model.name, words)
        if key not in self._questions:
            (vector,) = await self._embedders[model.name].embed([words])
            if len(vector) != model.dimensions:
                raise Unavailable(f"{model.name} gives {len(vector)} dimensions, not {model.dimensions} as before")
            if len(self._questions) > MOST_QUESTIONS:
                self._questions.clear()
            self._questions[key] = vector
        return self._questions[key]

    async def _matrix(self, tx: Transaction, model: Model) -> Vectors:
        """All vectors of a workspace; row i is meaning i + 1."""
        key = (tx.workspace, "vectors", model.name)
        kept: Kept | None = self._cache.get(key)
        if kept is not None and kept.generation >= model.reached:
            whole: Vectors = kept.value
            return whole[: model.reached]
        parts: list[Vectors] = [kept.value] if kept else []
        after = kept.generation if kept else 0
        while after < model.reached:
            rows = self._queries.embeddings_after(
                tx.connection, workspace=tx.workspace, model=model.name, after=after, most=READ
            )
            vectors = [(row["id"], row["vector"]) async for row in rows]
            if not vectors:
                break
            parts.append(unpacked((vector for _, vector in vectors), model.dimensions))
            after = vectors[-1][0]
        matrix = np.concatenate(parts) if parts else np.zeros((0, model.dimensions), np.float32)
        self._cache.put(key, Kept(after, matrix), matrix.nbytes)
        return matrix

    async def _few(self, view: View, model: Model, question: Vectors, among: BitMap) -> tuple[Ids, Vectors]:
        """Every meaning of a few versions, and how similar it is."""
        ids = np.unique(view.values("meaning", among)[1].astype(np.int64))
        rows = self._queries.embeddings_of(
            view.tx.connection, workspace=view.tx.workspace, model=model.name, ids=ids.tolist()
        )
        found = [(row["id"], row["vector"]) async for row in rows]
        matrix = unpacked((vector for _, vector in found), model.dimensions)
        return np.array([id for id, _ in found], np.int64), matrix @ question

    async def _by_index(self, view: View, model: Model, question: Vectors, among: BitMap, most: int) -> Ranking:
        """The nearest by the index; what the filter does not keep is made up for by asking for more, once."""
        best = NOTHING
        for wanted in (FIRST, MORE):
            found = [
                (row["id"], row["similarity"])
                async for row in self._queries.nearest(
                    view.tx.connection, workspace=view.tx.workspace, model=model.name, dimensions=model.dimensions,
                    vector=as_text(question), most=wanted,
                )
            ]  # fmt: skip
            ids, similar = np.array([id for id, _ in found], np.int64), np.array([one for _, one in found], np.float32)
            best = _best(view, among, ids, similar, most)
            if len(best[0]) >= ENOUGH or len(found) < wanted:
                break
        return best

    async def _has_near(self, tx: Transaction) -> bool:
        if not self._near:
            self._near = bool(await self._queries.has_near(tx.connection))
        return self._near


def _best(view: View, among: BitMap, ids: Ids, similar: Vectors, most: int) -> Ranking:
    """The versions whose meanings are most similar. The best meanings come first: mostly their versions suffice."""
    for keep in (min(len(ids), most), len(ids)):
        if keep < len(ids):
            chosen = np.argpartition(-similar, keep)[:keep]
            tried, near = ids[chosen], similar[chosen]
        else:
            tried, near = ids, similar
        table = np.full(view.meanings + 2, -np.inf, np.float32)
        table[tried] = near
        numbers, found = view.values("meaning", among & view.with_id("meaning", np.isfinite(table)))
        if len(numbers) >= ENOUGH or keep == len(ids):
            break
    values = table[found.astype(np.int64, copy=False)]
    if len(numbers) > most:
        chosen = np.argpartition(-values, most)[:most]
        numbers, values = numbers[chosen], values[chosen]
    return numbers, values.astype(np.float64)


class Embedding:
    """Embeds what is new, a batch a transaction; forgets the vectors of other models when one has caught up."""

    def __init__(self, queries: Any, embedder: Embedder) -> None:
        self._queries = queries
        self.embedder = embedder
        self.near = False

    async def prepare(self, tx: Transaction) -> None:
        """Whether there is an index for vectors; for a transaction that sees every workspace."""
        self.near = bool(await self._queries.make_near(tx.connection))

    async def workspaces(self, tx: Transaction) -> list[str]:
        rows = self._queries.workspaces_to_embed(tx.connection, model=self.embedder.name, near=self.near)
        return [row["workspace"] async for row in rows]

    async def new(self, tx: Transaction) -> list[tuple[int, str]]:
        """The next meanings that are not embedded."""
        reached = await self._reached(tx)
        rows = self._queries.meanings_after(tx.connection, workspace=tx.workspace, after=reached, most=BATCH)
        return [(row["id"], row["gist"]) async for row in rows]

    async def _reached(self, tx: Transaction) -> int:
        async for row in self._queries.embedders(tx.connection, workspace=tx.workspace):
            if row["model"] == self.embedder.name:
                return int(row["reached"])
        return 0

    async def keep(self, tx: Transaction, ids: list[int], vectors: Vectors, at: datetime) -> None:
        """Vectors of the next meanings; without any the model has caught up. Nothing where somebody was faster."""
        if not await self._queries.lock_embedding(tx.connection, workspace=tx.workspace):
            return
        dimensions = vectors.shape[1] if len(vectors) else 0
        state = await self._state(tx, dimensions, at)
        reached, indexed = state["reached"], state["indexed"]
        if ids and ids[0] <= reached:
            return
        if ids:
            await self._queries.put_embeddings(
                tx.connection, workspace=tx.workspace, model=self.embedder.name, ids=ids,
                vectors=[packed(vector) for vector in vectors],
            )  # fmt: skip
            reached = ids[-1]
        if self.near and indexed < reached:
            indexed = await self._index(tx, state["dimensions"], indexed)
        await self._queries.put_reached(
            tx.connection, workspace=tx.workspace, model=self.embedder.name, reached=reached, indexed=indexed,
            ready_at=None if ids else at,
        )  # fmt: skip
        if not ids:
            await self._forget_others(tx)

    async def _state(self, tx: Transaction, dimensions: int, at: datetime) -> Any:
        async for row in self._queries.embedders(tx.connection, workspace=tx.workspace):
            if row["model"] == self.embedder.name:
                dimensions = dimensions or row["dimensions"]
        return await self._queries.hold_embedder(
            tx.connection, workspace=tx.workspace, model=self.embedder.name, dimensions=dimensions, at=at
        )

    async def _index(self, tx: Transaction, dimensions: int, indexed: int) -> int:
        """The next vectors under the index; one that came when others had been embedded catches up batch by batch."""
        rows = self._queries.embeddings_after(
            tx.connection, workspace=tx.workspace, model=self.embedder.name, after=indexed, most=2 * BATCH
        )
        found = [(row["id"], row["vector"]) async for row in rows]
        if not found:
            return indexed
        matrix = unpacked((vector for _, vector in found), dimensions)
        await self._queries.put_near(
            tx.connection, workspace=tx.workspace, model=self.embedder.name, ids=[id for id, _ in found],
            vectors=[as_text(vector) for vector in matrix],
        )  # fmt: skip
        await self._queries.index_near(tx.connection, model=self.embedder.name, dimensions=dimensions)
        return int(found[-1][0])

    async def _forget_others(self, tx: Transaction) -> None:
        others = [
            row["model"]
            async for row in self._queries.embedders(tx.connection, workspace=tx.workspace)
            if row["model"] != self.embedder.name
        ]
        for model in others:
            await self._queries.forget_embedder(tx.connection, workspace=tx.workspace, model=model)
            if self.near:
                await self._queries.forget_near(tx.connection, workspace=tx.workspace, model=model)


def packed(vector: Vectors) -> bytes:
    """As it is kept: float16."""
    return vector.astype("<f2").tobytes()


def unpacked(vectors: Iterable[bytes], dimensions: int) -> Vectors:
    return np.frombuffer(b"".join(vectors), "<f2").reshape(-1, dimensions).astype(np.float32)


def as_text(vector: Vectors) -> str:
    """As pgvector reads it."""
    return f"[{','.join(f'{value:.5g}' for value in vector.tolist())}]"
