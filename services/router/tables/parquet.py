"""Rows as Parquet and back. Everything here blocks and runs in a thread.

Postgres writes CSV (COPY), Arrow reads it in pieces, and what was written is read back and compared before anybody
relies on it. Times are timestamps in UTC, numbers are numbers; UUIDs, decimals and JSON are texts, as Postgres prints
them, so that nothing is rounded and every reader of Parquet can read all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from services.router.gateway.rows import COLUMNS, JSON_COLUMNS
from shared.errors import IntegrityFailed

BLOCK_BYTES = 64 * 1024 * 1024
"""No row's CSV is larger: a request and its answer are a few MiB at the most."""
TYPES = {
    "uuid": pa.string(), "text": pa.string(), "jsonb": pa.string(), "numeric": pa.string(), "timestamptz": pa.int64(),
    "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "float8": pa.float64(),
}  # fmt: skip
TIME = pa.timestamp("us", tz="UTC")
READ = pa.schema([(name, TYPES[kind]) for name, kind in COLUMNS])
"""What the CSV of `inference_export` holds."""
KEPT = pa.schema([(name, TIME if kind == "timestamptz" else TYPES[kind]) for name, kind in COLUMNS])


def write(csv: Path, target: Path, about: dict[str, str]) -> int:
    """`csv` as Parquet, `about` in its metadata; returns how many rows. Raises IntegrityFailed if they differ."""
    schema = KEPT.with_metadata({f"mintmark:{name}": value for name, value in about.items()})
    with pa.parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _batches(csv):
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return _verified(csv, target)


def copy_without(source: Path, target: Path, goes: Callable[[dict[str, Any]], bool], about: dict[str, str]) -> int:
    """The rows of `source` without those that go; returns how many those were."""
    gone = 0
    with pa.parquet.ParquetFile(source) as file:
        schema = KEPT.with_metadata({f"mintmark:{name}": value for name, value in about.items()})
        with pa.parquet.ParquetWriter(target, schema, compression="zstd") as writer:
            for batch in file.iter_batches():
                stays = [not goes(row_of(row)) for row in batch.to_pylist()]
                gone += stays.count(False)
                writer.write_batch(batch.filter(pa.array(stays)).replace_schema_metadata(schema.metadata))
    return gone


def count_of(file: Path, chosen: Callable[[dict[str, Any]], bool]) -> int:
    """How many rows of a file are chosen."""
    with pa.parquet.ParquetFile(file) as opened:
        return sum(chosen(row_of(row)) for batch in opened.iter_batches() for row in batch.to_pylist())


def page(file: Path, after: int, most: int) -> list[dict[str, Any]]:
    """Rows from a place in the file on, with JSON columns as values."""
    found: list[dict[str, Any]] = []
    with pa.parquet.ParquetFile(file) as opened:
        place = 0
        for number in range(opened.num_row_groups):
            size = opened.metadata.row_group(number).num_rows
            if place + size > after:
                table = opened.read_row_group(number).slice(max(0, after - place), most - len(found))
                found.extend(row_of(row) for row in table.to_pylist())
            place += size
            if len(found) >= most:
                break
    return found


def row_of(row: dict[str, Any]) -> dict[str, Any]:
    """JSON columns as values."""
    return {
        name: orjson.loads(value) if name in JSON_COLUMNS and value is not None else value
        for name, value in row.items()
    }


def _batches(csv: Path) -> Iterator[pa.RecordBatch]:
    if csv.stat().st_size == 0:
        return
    reader = pa.csv.open_csv(
        csv,
        read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES, column_names=READ.names),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types=READ, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    for batch in reader:
        yield pa.RecordBatch.from_arrays(
            [column.cast(field.type) for column, field in zip(batch.columns, KEPT, strict=True)], schema=KEPT
        )


def _verified(csv: Path, target: Path) -> int:
    """How many rows the file has, once each was found equal to what Postgres wrote."""
    rows = 0
    with pa.parquet.ParquetFile(target) as file:
        groups = (file.read_row_group(number) for number in range(file.num_row_groups))
        for written in _batches(csv):
            read = pa.Table.from_batches([], KEPT)
            while read.num_rows < written.num_rows:
                group = next(groups, None)
                if group is None:
                    raise IntegrityFailed("the Parquet file has fewer rows than were written to it")
                read = pa.concat_tables([read, group.replace_schema_metadata(None)])
            if not read.equals(pa.Table.from_batches([written])):
                raise IntegrityFailed("the Parquet file does not say what was written to it")
            rows += read.num_rows
        if next(groups, None) is not None:
            raise IntegrityFailed("the Parquet file has more rows than were written to it")
    return rows
