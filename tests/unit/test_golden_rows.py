"""Golden rows of prompts: a cell is what its author wrote, as the type that the prompt declares."""

from __future__ import annotations

import io
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.evaluator.answers.golden import expected, read_rows, values
from services.evaluator.errors import GoldenSetUnreadable

TYPES = {name: {"type": name} for name in ("string", "integer", "number", "boolean", "array", "object")}


def one(content: bytes, format: str = "csv") -> Any:
    (row,) = read_rows(((content, format),))
    return row


def test_a_csv_cell_stays_text_until_the_prompt_says_otherwise() -> None:
    row = one(b'string,integer,number,boolean,array,label,empty\n007,7,1.50,true,"[""a"", 1]",1.0,\n')
    assert values(row, "label", TYPES) == {
        "string": "007", "integer": 7, "number": 1.5, "boolean": True, "array": ["a", 1],
    }  # fmt: skip
    assert expected(row, "label") == ("1.0",) and "empty" not in row


def test_what_is_no_such_type_is_left_to_the_prompts_schema() -> None:
    assert values(one(b"integer,label\nseven,x\n"), "label", TYPES) == {"integer": "seven"}


def test_parquet_has_types_and_any_of_a_list_is_right() -> None:
    sink = io.BytesIO()
    cells = {"string": date(2026, 1, 2), "integer": Decimal("3"), "number": Decimal("3.5"), "label": ["a", None, "b"]}
    pq.write_table(pa.Table.from_pylist([cells]), sink)
    row = one(sink.getvalue(), "parquet")
    assert values(row, "label", TYPES) == {"string": "2026-01-02", "integer": 3, "number": 3.5}
    assert expected(row, "label") == ("a", "b")


@pytest.mark.parametrize(("cell", "text"), [(b"1", "1"), (b"2.0", "2"), (b"true", "true"), (b'""', ""), (b'"x"', "x")])
def test_an_expected_answer_is_text(cell: bytes, text: str) -> None:
    assert expected(one(b'{"label": %b}' % cell, "jsonl"), "label") == (text,)


def test_the_label_fills_no_variable() -> None:
    assert values({"label": "x", "string": "y"}, "label", {**TYPES, "label": {"type": "string"}}) == {"string": "y"}


@pytest.mark.parametrize(
    ("content", "format"),
    [
        (b"", "csv"),
        (b"a,a\n1,2\n", "csv"),
        (b"a,b\n1\n", "csv"),
        (b"PAR1", "parquet"),
        (b"\xff\n", "jsonl"),
        (b'{"a": 1, "a": 2}', "jsonl"),
        (b"", "xlsx"),
    ],
)
def test_what_is_no_golden_set_is_said_to_be_none(content: bytes, format: str) -> None:
    with pytest.raises(GoldenSetUnreadable):
        read_rows(((content, format),))
