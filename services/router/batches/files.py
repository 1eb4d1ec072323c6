"""JSONL and Parquet on a local disk: rows of the input one after another, and the output written as rows come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from services.router.batches.domain import Format, Result, Shape, line_of, outputs_of
from services.router.errors import BatchRefused, FieldRefused
from shared.errors import MintmarkError

LINE_BYTES = 16 << 20
ROWS_AT_A_TIME = 256
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.int32()),
        ("request_id", pa.string()),
        ("version", pa.string()),
        ("output", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)
"""Of a Parquet output; `output` is JSON: the outputs by name, or the body of the answer."""

Row = Any | MintmarkError
"""A row as JSON has it, or why it is none."""


def count(path: Path, format: Format, most: int) -> int:
    """How many rows the file has. Raises BatchRefused when it is not of the format, has none, or more than `most`."""
    if format is Format.PARQUET:
        found = _parquet(path).metadata.num_rows
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
    return _parquet_rows(path, first) if format is Format.PARQUET else _jsonl_rows(path, first)


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


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BatchRefused(f"The input is not Parquet: {str(error)[:200]}") from None


def _parquet_rows(path: Path, first: int) -> Iterator[tuple[int, Row]]:
    place = 0
    with _parquet(path) as file:
        try:
            for batch in file.iter_batches(ROWS_AT_A_TIME):
                if place + batch.num_rows > first:
                    for offset, row in enumerate(batch.to_pylist()):
                        if place + offset >= first:
                            yield place + offset, {name: _plain(value) for name, value in row.items()}
                place += batch.num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BatchRefused(f"The input's row {place} cannot be read: {str(error)[:200]}") from None


def _plain(value: Any) -> Any:
    """What JSON has for a value of Arrow: decimals are numbers, moments ISO 8601, and NaN is null."""
    match value:
        case Decimal():
            return float(value)
        case datetime() | date():
            return value.isoformat()
        case float() if value != value:
            return None
        case bytes():
            return value.decode("utf-8", "replace")
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {name: _plain(one) for name, one in value.items()}
    return value


class Writer(Protocol):
    """Writes the output; what it leaves at the path is whole once it is closed. Blocks."""

    def write(self, results: list[Result]) -> None: ...

    def close(self) -> None: ...


def writer(path: Path, format: Format, shape: Shape) -> Writer:
    return ParquetWriter(path, shape) if format is Format.PARQUET else JsonlWriter(path, shape)


class JsonlWriter:
    def __init__(self, path: Path, shape: Shape) -> None:
        self._file = path.open("wb")
        self._shape = shape

    def write(self, results: list[Result]) -> None:
        for one in results:
            self._file.write(orjson.dumps(line_of(one, self._shape)) + b"\n")

    def close(self) -> None:
        self._file.close()


class ParquetWriter:
    def __init__(self, path: Path, shape: Shape) -> None:
        self._file = pq.ParquetWriter(path, COLUMNS)
        self._shape = shape

    def write(self, results: list[Result]) -> None:
        found = [
            {
                "id": one.id, "status": one.status, "request_id": one.request_id, "version": one.version,
                "output": self._output(one), "error_code": one.code, "error_message": one.message,
            }
            for one in results
        ]  # fmt: skip
        self._file.write_table(pa.Table.from_pylist(found, schema=COLUMNS))

    def _output(self, result: Result) -> str | None:
        found = outputs_of(result.body) if self._shape is Shape.FEATURES and not result.is_error else result.body
        return None if found is None else orjson.dumps(found).decode()

    def close(self) -> None:
        self._file.close()
