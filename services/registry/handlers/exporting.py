"""The whole catalog, or what a filter finds of it, as a stream: a page of versions in memory, never all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol

import orjson

from services.registry.handlers.reading import Standing
from services.registry.handlers.searching import Searching
from services.registry.search.asked import Asked
from shared.identity.principal import Principal

Format = Literal["jsonl", "parquet"]
PAGE = 1_000
"""Versions in memory at once, and in one row group."""


class Writer(Protocol):
    """Makes bytes of pages of rows."""

    def page(self, rows: Sequence[dict[str, Any]]) -> bytes: ...

    def end(self) -> bytes: ...


class Exporting:
    """Pages are read one after the other, each in its own transaction: no connection is held while a client reads."""

    def __init__(self, searching: Searching) -> None:
        self._searching = searching

    async def stream(self, caller: Principal, asked: Asked, form: Format) -> AsyncIterator[bytes]:
        """What is found, newest first. What is registered after it began is not in it."""
        writer, after = await asyncio.to_thread(writer_of, form), None
        while True:
            answer = await self._searching.search(caller, asked, after, PAGE)
            if answer.results:
                rows = [row_of(result.standing) for result in answer.results]
                yield await asyncio.to_thread(writer.page, rows)
            if answer.last is None:
                break
            after = answer.last
        yield await asyncio.to_thread(writer.end)


def row_of(standing: Standing) -> dict[str, Any]:
    """A version as one row."""
    version, content = standing.version, standing.version.content
    training, artefact = content["training"], content["artefact"] or {}
    dataset = training["dataset"]
    return {
        "urn": version.urn,
        "kind": content["kind"],
        "name": version.ref.name,
        "title": version.title,
        "version": version.ref.version,
        "number": version.number,
        "digest": version.ref.digest,
        "stage": standing.stage,
        "aliases": list(standing.aliases),
        "task": content["task"],
        "licence": content["licence"],
        "description": version.description,
        "tags": version.tags,
        "metrics": version.metrics,
        "author": version.author.id,
        "author_proven": version.author.proven,
        "artefact_digest": artefact.get("digest"),
        "artefact_format": artefact.get("format"),
        "artefact_size": version.artefact_size,
        "run_id": training["run_id"],
        "dataset": f"{dataset['urn']}@{dataset['version']}" if dataset else None,
        "base": list(training["base"]),
        "registered_at": version.registered_at,
        "updated_at": version.updated_at,
        "content": orjson.dumps(content).decode(),
    }


class JsonLines:
    """One JSON document a line; `content` as JSON, not as text."""

    def page(self, rows: Sequence[dict[str, Any]]) -> bytes:
        return b"".join(
            orjson.dumps({**row, "content": orjson.Fragment(row["content"])}, option=orjson.OPT_APPEND_NEWLINE)
            for row in rows
        )

    def end(self) -> bytes:
        return b""


def writer_of(form: Format) -> Writer:
    """Blocks: Arrow is large, and imported only here."""
    if form == "parquet":
        from services.registry.handlers.parquet import Parquet

        return Parquet()
    return JsonLines()
