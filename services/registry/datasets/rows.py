"""Rows of a file as 64-bit hashes, in batches, so that memory does not grow with the file.

The canonical form of a row is the concatenation, over its columns sorted by name, of `name US value RS` (the ASCII
separators), columns without a value left out. So the same row has the same hash in every format and order of columns:

- no value: null, NaN, an empty text;
- numbers: whole ones below 10^15 without a point (`1`, also of `1.0`), others by their shortest decimal form;
- a text that reads as such a number (no leading zeros, no sign +) is that number, since csv has nothing but texts;
- booleans and texts that read as one: `true`, `false`; dates and times as ISO 8601 with a blank;
- bytes in hex; lists and structures as JSON with sorted keys.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

Hashes = npt.NDArray[np.uint64]

BATCH_ROWS = 20_000
BLOCK_BYTES = 4 * 1024 * 1024
MOST_LINE = 64 * 1024 * 1024
NUMBER = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$"
WHOLE_BELOW = 1e15


class Unreadable(Exception):
    """The file is not what its format says."""


def hashes_of(file: IO[bytes], form: str) -> Iterator[Hashes]:
    """The hashes of a file's rows, batch by batch. Raises Unreadable."""
    try:
        for batch in READERS[form](file):
            yield _hashes(batch)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, ValueError, OSError, KeyError) as error:
        raise Unreadable(f"the file cannot be read as {form}: {str(error)[:300]}") from error


def _parquet(file: IO[bytes]) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS)


def _csv(file: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """Every value as a text; what is a number shows by itself."""
    head = file.readline(MOST_LINE).decode("utf-8-sig")
    names = next(csv.reader([head]), [])
    file.seek(0)
    if not names:
        return
    if len(set(names)) != len(names):
        raise Unreadable("two columns have the same name")
    reader = pa_csv.open_csv(
        file,
        pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        pa_csv.ParseOptions(newlines_in_values=True),
        pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
    )
    yield from reader


def _jsonl(file: IO[bytes]) -> Iterator[pa.RecordBatch]:
    lines = io.TextIOWrapper(file, "utf-8")
    try:
        rows = (json.loads(line) for line in lines if line.strip())
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            if not all(isinstance(row, dict) for row in batch):
                raise Unreadable("a line is no JSON object")
            names = sorted({name for row in batch for name in row})
            yield pa.RecordBatch.from_arrays([_array([row.get(name) for row in batch]) for name in names], names)
    finally:
        lines.detach()


def _array(values: list[Any]) -> pa.Array:
    """One column of JSON values; of mixed kinds, as texts."""
    if any(isinstance(value, dict | list) for value in values):
        return pa.array([_text(value) for value in values], pa.string())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


READERS: dict[str, Callable[[IO[bytes]], Iterator[pa.RecordBatch]]] = {
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _jsonl,
}


def _hashes(batch: pa.RecordBatch) -> Hashes:
    texts = [text.encode() for text in canonical(batch).to_pylist()]
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def canonical(batch: pa.RecordBatch) -> pa.Array:
    """Each row's canonical form."""
    parts = []
    for name in sorted(batch.schema.names):
        values = _canonical(batch.column(batch.schema.get_field_index(name)))
        given = pc.binary_join_element_wise(f"{name}\x1f", values, "\x1e", "")
        parts.append(pc.if_else(pc.equal(values, ""), "", given))
    if not parts:
        return pa.array([""] * batch.num_rows, pa.string())
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "")


def _canonical(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _canonical(column.dictionary_decode())
    if pa.types.is_null(kind):
        return pa.array([""] * len(column), pa.string())
    if pa.types.is_floating(kind):
        return _floats(pc.cast(column, pa.float64()))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        return pc.fill_null(pc.cast(column, pa.string()), "")
    if pa.types.is_decimal(kind):
        return _texts(pc.cast(column, pa.string()))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _texts(pc.cast(column, pa.string()))
    values = column.to_pylist()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array(["" if value is None else value.hex() for value in values], pa.string())
    return pa.array([_text(value) or "" for value in values], pa.string())


def _floats(column: pa.Array) -> pa.Array:
    there = pc.fill_null(pc.is_finite(column), False)
    safe = pc.if_else(there, column, 0.0)
    whole = pc.and_(pc.equal(pc.floor(safe), safe), pc.less(pc.abs(safe), WHOLE_BELOW))
    digits = pc.cast(pc.cast(pc.if_else(whole, safe, 0.0), pa.int64()), pa.string())
    texts = pc.if_else(whole, digits, pc.cast(safe, pa.string()))
    infinite = pc.fill_null(pc.is_inf(column), False)
    return pc.if_else(there, texts, pc.if_else(infinite, pc.fill_null(pc.cast(column, pa.string()), ""), ""))


def _texts(column: pa.Array) -> pa.Array:
    texts = pc.fill_null(column, "")
    numeric = pc.match_substring_regex(texts, NUMBER)
    if pc.any(numeric).as_py():
        texts = pc.if_else(numeric, _floats(pc.cast(pc.if_else(numeric, texts, "0"), pa.float64())), texts)
    words = pc.match_substring_regex(texts, r"^(?i:true|false)$")
    return pc.if_else(words, pc.utf8_lower(texts), texts)
