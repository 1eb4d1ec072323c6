"""Parquet on a local disk, as `files` has it of JSONL. Everything here blocks and runs in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from services.router.batches.domain import Result, Shape, outputs_of
from services.router.errors import BatchRefused

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


def count(path: Path) -> int:
    """How many rows. Raises BatchRefused when it is not Parquet."""
    return int(_opened(path).metadata.num_rows)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BatchRefused(f"The input is not Parquet: {str(error)[:200]}") from None


def rows(path: Path, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Place and row, from the place `first` on. Raises BatchRefused when the file breaks off."""
    place = 0
    with _opened(path) as file:
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
