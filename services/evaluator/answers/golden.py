"""Golden rows of a prompt: columns named as its variables, the expected answer in the manifest's label column."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.csv

from services.evaluator.domain import File
from services.evaluator.errors import GoldenSetEmpty, GoldenSetUnreadable, LabelMissing, VariableMissing
from services.evaluator.templates.golden import read_golden_set
from shared import strict_json
from shared.errors import Malformed

Row = Mapping[str, Any]


@lru_cache(maxsize=2)
def read_rows(files: tuple[File, ...]) -> list[Row]:
    """All rows in the order of the files; raises GoldenSetUnreadable. A cell that is null is not in its row."""
    rows = [row for content, format in files for row in _read(content, format)]
    return [{name: cell for name, cell in row.items() if not _is_null(cell)} for row in rows]


def _read(content: bytes, format: str) -> list[dict[str, Any]]:
    if format == "jsonl":
        return _json_lines(content)
    table = _texts(content) if format == "csv" else read_golden_set(content, format)
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except Exception as error:  # a time beyond Python's, a zone that nobody knows
        raise GoldenSetUnreadable(f"the golden set holds a value that cannot be read: {str(error)[:200]}") from error
    return rows


def _texts(content: bytes) -> pa.Table:
    """A CSV file with every cell as it stands there: `007` is no number to a model, and a question may have lines."""
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    try:
        names = pa.csv.open_csv(io.BytesIO(content), parse_options=parse).schema.names
        convert = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, quoted_strings_can_be_null=False,
            null_values=[""],
        )  # fmt: skip
        table = pa.csv.read_csv(io.BytesIO(content), parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise GoldenSetUnreadable(f"the golden set is no readable csv file: {str(error)[:200]}") from error
    if len(set(names)) != len(names):
        raise GoldenSetUnreadable("the golden set has columns of the same name; name each once")
    return table


def _json_lines(content: bytes) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = strict_json.loads(line)
        except Malformed as error:
            raise GoldenSetUnreadable(f"line {number} of the golden set is no JSON: {error.message[:200]}") from error
        if not isinstance(row, dict):
            raise GoldenSetUnreadable(f"line {number} of the golden set is no JSON object")
        rows.append(row)
    return rows


def _is_null(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def check(rows: Sequence[Row], label: str, variables: Mapping[str, Any], required: Sequence[str]) -> None:
    """Raises GoldenSetEmpty, LabelMissing, or VariableMissing where no row can become a question."""
    if not rows:
        raise GoldenSetEmpty()
    columns = {name for row in rows for name in row}
    if label not in columns:
        raise LabelMissing(
            f"the golden set has no label column {label!r}; name the right one in the dataset's manifest"
        )
    columns.discard(label)  # the answer is never a part of the question
    missing = [name for name in required if name not in columns]
    if missing:
        raise VariableMissing(
            f"the golden set has no column for the prompt's variables {', '.join(missing[:5])} (the label column "
            f"is never shown to it); it has {', '.join(sorted(columns)[:10]) or 'no other'}"
        )
    if not columns & set(variables):
        raise VariableMissing("no column of the golden set is a variable of the prompt, so all rows would ask the same")


def values(row: Row, label: str, variables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The prompt's variables by this row, each as the type that the prompt declares where the cell can be that."""
    return {
        name: _as(declared.get("type", "string"), row[name])
        for name, declared in variables.items()
        if name in row and name != label
    }


def expected(row: Row, label: str) -> tuple[str, ...]:
    """The right answers: one, or where the cell is a list any of them; none where the row has no label."""
    cell = row.get(label)
    if isinstance(cell, list):
        return tuple(_text(one) for one in cell if not _is_null(one))
    return () if cell is None else (_text(cell),)


def _as(type: str, cell: Any) -> Any:
    if type == "string":
        return _text(cell) if not isinstance(cell, dict | list) else cell
    if isinstance(cell, str):
        with suppress(Malformed):
            return strict_json.loads(cell.encode())
    if isinstance(cell, Decimal):
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    return cell


def _text(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    if isinstance(cell, date | datetime):
        return cell.isoformat()
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)
