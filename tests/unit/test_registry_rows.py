"""Rows as hashes: the same row in every format, sketches of any size, rows in common."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.registry.datasets.rows import Unreadable, canonical, hashes_of
from services.registry.datasets.sketches import Sketch, Sketching, shared

ROWS: list[dict[str, Any]] = [
    {"age": 41, "wage": 12.5, "name": 'Ä, "B"\n', "works": True, "zip": "00123", "left": None},
    {"age": -7, "wage": 3.0, "name": "", "works": False, "zip": "9", "left": "x"},
    {"age": 0, "wage": 1e-7, "name": "TRUE", "works": None, "zip": "1e3", "left": "1.0"},
    {"age": 2**52, "wage": None, "name": "2026-11-20", "works": True, "zip": "-0", "left": "NaN"},
]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: str(value) if isinstance(value, bool) else value for key, value in row.items()})
    return text.getvalue().encode()


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(dict(reversed(row.items()))).encode() for row in rows)


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def hashes(data: bytes, form: str) -> list[int]:
    return [int(one) for batch in hashes_of(io.BytesIO(data), form) for one in batch]


@pytest.mark.parametrize(("form", "write"), [("csv", as_csv), ("jsonl", as_jsonl)])
def test_a_row_has_one_hash_in_every_format(form: str, write: Callable[[list[dict[str, Any]]], bytes]) -> None:
    wanted = hashes(as_parquet(ROWS), "parquet")
    assert len(set(wanted)) == len(ROWS)
    assert hashes(write(ROWS), form) == wanted


def test_the_canonical_form() -> None:
    batch = pa.RecordBatch.from_pylist(ROWS[:1])
    assert canonical(batch).to_pylist() == [
        'age\x1f41\x1ename\x1fÄ, "B"\n\x1ewage\x1f12.5\x1eworks\x1ftrue\x1ezip\x1f00123\x1e'
    ]


def test_values_of_every_kind() -> None:
    columns = {
        "bytes": [b"\x00\xff"], "list": [[{"b": 2, "a": None}]], "time": [datetime(2026, 1, 1, tzinfo=UTC)],
        "inf": [float("inf")], "nan": [float("nan")], "nothing": [None], "words": pa.array(["a"]).dictionary_encode(),
        "small": pa.array([0.1], pa.float32()), "huge": [2**62],
    }  # fmt: skip
    (text,) = canonical(pa.RecordBatch.from_pydict(columns)).to_pylist()
    parts = dict(part.split("\x1f") for part in text.split("\x1e") if part)
    assert parts == {
        "bytes": "00ff", "list": '[{"a":null,"b":2}]', "time": parts["time"], "inf": "inf", "words": "a",
        "small": "0.10000000149011612", "huge": str(2**62),
    }  # fmt: skip
    assert parts["time"].startswith("2026-01-01 00:00:00")


def test_mixed_and_nested_json() -> None:
    one = b'{"a": 1, "b": [1]}\n\n{"a": "x", "b": {"c": 1}}\n'
    assert len(set(hashes(one, "jsonl"))) == 2
    assert hashes(b'{"a": 1}\n', "jsonl") == hashes(b'{"a": "1", "b": null}\n{"a": {}}', "jsonl")[:1]


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"PAR1 golden rows PAR1", "parquet"), (b"", "parquet"), (b"a,a\n1,2\n", "csv"), (b"a,b\n1\n", "csv"),
        (b"\xff\xfe", "csv"), (b"[1]\n", "jsonl"), (b"{\n", "jsonl"), (b"\xff", "jsonl"),
    ],
)  # fmt: skip
def test_what_is_not_its_format_is_told(data: bytes, form: str) -> None:
    with pytest.raises(Unreadable):
        hashes(data, form)


def test_nothing_in_a_file() -> None:
    assert hashes(b"", "csv") == hashes(b"a,b\n", "csv") == hashes(b"", "jsonl") == []


def sketch_of(values: np.ndarray[Any, Any], most: int) -> Sketch:
    made = Sketching(most)
    for part in np.array_split(values, 7):
        made.add(part)
    return made.made()


def test_counts_are_exact_up_to_the_bound_and_honest_beyond() -> None:
    dice = np.random.default_rng(7)
    values = dice.integers(0, 2**64, 60_000, dtype=np.uint64)
    train, test = values[:50_000], np.concatenate([values[45_000:], values[59_000:]])  # 5,000 in common, some twice
    exact = shared(sketch_of(train, 100_000), sketch_of(test, 100_000))
    assert (exact.rows, exact.exact, exact.low, exact.high) == (5_000, True, 5_000, 5_000)
    small, whole = sketch_of(train, 8_000), sketch_of(test, 100_000)
    assert small.rows == 50_000 and len(small.hashes) <= 8_000 and abs(small.distinct - 50_000) < 2_500
    guess = shared(small, whole)
    assert not guess.exact and guess.low <= 5_000 <= guess.high
    none = shared(small, sketch_of(dice.integers(0, 2**64, 20_000, dtype=np.uint64), 8_000))
    assert (none.rows, none.low) == (0, 0) and none.high == 3 * 2 ** max(small.halvings, 2)
    again = Sketch.from_bytes(small.to_bytes(), small.rows, small.halvings)
    assert again.distinct == small.distinct and shared(again, small).rows == small.distinct
