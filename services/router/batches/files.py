"""Files on a local disk: rows of the input one after another, and the output written as rows come.

JSONL stands here; Parquet stands in parquet.py, which is imported in the thread that first needs it: Arrow is large.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from services.router.batches.domain import Format, Result, Shape, line_of
from services.router.errors import BatchRefused, FieldRefused
from shared.errors import MintmarkError

LINE_BYTES = 16 << 20

Row = Any | MintmarkError
"""A row as JSON has it, or why it is none."""


def count(path: Path, format: Format, most: int) -> int:
    """How many rows the file has. Raises BatchRefused when it is not of the format, has none, or more than `most`."""
    if format is Format.PARQUET:
        from services.router.batches import parquet

        found = parquet.count(path)
    else:
        with path.open("rb") as file:
            found = sum(1 for line in _lines(file) if line.strip())
    if not found:
        raise BatchRefused("The input has no row.")
    if found > most:
        raise BatchRefused(f"The input has {found} rows; {most} is the most of one batch, so split it.")
    return int(found)


def rows(path: Path, format: Format, first: int) -> Iterator[tuple[int, Row]]:
    """Place and row, from the place `first` on. Blocks. Raises BatchRefused when the file breaks off."""
    if format is Format.PARQUET:
        from services.router.batches import parquet

        yield from parquet.rows(path, first)
    else:
        yield from _jsonl_rows(path, first)


def _jsonl_rows(path: Path, first: int) -> Iterator[tuple[int, Row]]:
    place = -1
    with path.open("rb") as file:
        for line in _lines(file):
            if not line.strip():
                continue
            place += 1
            if place >= first:
                yield place, _parsed(line, place)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Raises BatchRefused for a line that no request could be."""
    while line := file.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES:
            raise BatchRefused(f"The input has a line of more than {LINE_BYTES} bytes; is it JSONL?")
        yield line


def _parsed(line: bytes, place: int) -> Row:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return FieldRefused(f"row {place}", f"is not JSON: {error}")


class Writer(Protocol):
    """Writes the output; what it leaves at the path is whole once it is closed. Blocks."""

    def write(self, results: list[Result]) -> None: ...

    def close(self) -> None: ...


def writer(path: Path, format: Format, shape: Shape) -> Writer:
    """Blocks."""
    if format is Format.PARQUET:
        from services.router.batches.parquet import ParquetWriter

        return ParquetWriter(path, shape)
    return JsonlWriter(path, shape)


class JsonlWriter:
    def __init__(self, path: Path, shape: Shape) -> None:
        self._file = path.open("wb")
        self._shape = shape

    def write(self, results: list[Result]) -> None:
        for one in results:
            self._file.write(orjson.dumps(line_of(one, self._shape)) + b"\n")

    def close(self) -> None:
        self._file.close()
