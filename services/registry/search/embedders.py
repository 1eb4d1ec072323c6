"""What makes vectors of texts: the model that ships with the program, or a group of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shared.errors import Unavailable

Vectors = npt.NDArray[np.float32]

DIMENSIONS = 64
ONE_THREAD_MOST = 8
GATEWAY_BATCH = 64


class Embedder(Protocol):
    """`name` tells models apart: vectors of one are never compared with another's."""

    name: str

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, one a text. Raises Unavailable."""
        ...


class Shipped:
    """WordLlama: 16 MB of token vectors in its wheel, averaged. Needs no network and 0.1 ms a text.

    Its vectors are trained so that their beginning is a vector by itself; 64 of the 256 numbers are taken.
    """

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        self.name = f"wordllama-l2-supercat-{dimensions}"
        self._dimensions = dimensions
        self._model: Any = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if self._model is None:
            self._model = await asyncio.to_thread(self._load)
        if len(texts) <= ONE_THREAD_MOST:
            return self._embed(texts)
        return await asyncio.to_thread(self._embed, texts)

    def _load(self) -> Any:
        import wordllama  # type: ignore[import-untyped]  # takes 0.3 s, which nobody who does not search by meaning should wait for

        folder = Path(wordllama.__file__).parent
        whole = self._dimensions if self._dimensions < 256 else None
        return wordllama.WordLlama.load(cache_dir=folder, disable_download=True, trunc_dim=whole)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        return unit(np.asarray(self._model.embed(list(texts)), np.float32))


class OfGateway:
    """A group behind the gateway's `/v1/embeddings`."""

    def __init__(self, url: str, group: str, key: str | None, timeout_s: float = 30.0) -> None:
        self.name = f"gateway/{group}"
        self._group = group
        import httpx  # only an installation whose gateway embeds needs it

        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        import httpx

        if not texts:
            return np.zeros((0, 0), np.float32)
        found: list[Any] = []
        for start in range(0, len(texts), GATEWAY_BATCH):
            asked = {"model": self._group, "input": list(texts[start : start + GATEWAY_BATCH])}
            try:
                answer = await self._client.post("/v1/embeddings", json=asked)
                answer.raise_for_status()
                found += [one["embedding"] for one in sorted(answer.json()["data"], key=lambda one: one["index"])]
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                raise Unavailable(f"the gateway's group {self._group} gives no embeddings: {error}") from error
        if len(found) != len(texts) or len({len(vector) for vector in found}) > 1:
            raise Unavailable(f"the gateway's group {self._group} gave {len(found)} embeddings for {len(texts)} texts")
        return unit(np.asarray(found, np.float32))


def unit(vectors: Vectors) -> Vectors:
    """Of length 1; one without any direction (an empty text) stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled
