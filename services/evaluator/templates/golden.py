"""Golden sets: a Parquet or CSV file with one row an example, its label in the column that the manifest names."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from services.evaluator.domain import Floats, Texts, class_name
from services.evaluator.errors import (
    FeatureMissing,
    FeatureNotNumeric,
    GoldenSetUnreadable,
    LabelMissing,
    LabelUnknown,
    SensitiveMissing,
)

MISSING_GROUP = "(missing)"
"""The group of rows whose sensitive value is null: left out, a model could fail them unseen."""


def read_golden_set(data: bytes, format: str) -> pa.Table:
    """The whole file as an Arrow table; raises GoldenSetUnreadable. `format` is parquet or csv (header row, UTF-8)."""
    try:
        if format == "parquet":
            table = pa.parquet.read_table(io.BytesIO(data))
        elif format == "csv":
            options = pa.csv.ConvertOptions(strings_can_be_null=True)
            table = pa.csv.read_csv(io.BytesIO(data), convert_options=options)
        else:
            raise GoldenSetUnreadable(f"a golden set cannot be in the format {format[:40]!r}; use parquet or csv")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise GoldenSetUnreadable(f"the golden set is no readable {format} file: {str(error)[:200]}") from error
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise GoldenSetUnreadable(
            f"the golden set has columns of the same name: {', '.join(twice[:5])}; name each once"
        )
    return table


def feature_matrix(table: pa.Table, features: Sequence[str]) -> Floats:
    """[rows, features] as float64, NaN for null. Raises FeatureMissing or FeatureNotNumeric, naming the columns."""
    absent = [name for name in features if name not in table.column_names]
    if absent:
        raise FeatureMissing(f"the golden set lacks columns that the model takes: {_few(absent)}; add them")
    if not features:
        return np.empty((table.num_rows, 0))
    return np.column_stack([_as_floats(table[name], name) for name in features])


def labelled(table: pa.Table, label: str) -> pa.Table:
    """The rows that have a label; the others cannot be scored. Raises LabelMissing."""
    if label not in table.column_names:
        raise LabelMissing(
            f"the golden set has no label column {label!r}; name the right one in the dataset's manifest"
        )
    return table.filter(pc.invert(pc.is_null(table[label], nan_is_null=True)))


def class_indices(table: pa.Table, label: str, classes: Sequence[str]) -> Floats:
    """[rows] the index of each label in `classes`; raises LabelUnknown with the labels that the model does not know."""
    codes, values = _distinct(table[label])
    names = [class_name(value) for value in values]
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise LabelUnknown(
            f"the golden set has labels that the model does not know: {_few(unknown)}; it knows {_few(classes)}"
        )
    return np.asarray(np.array([classes.index(name) for name in names], dtype=np.float64)[codes])


def targets(table: pa.Table, label: str) -> Floats:
    """[rows] the numeric targets of a regression; raises FeatureNotNumeric."""
    return _as_floats(table[label], label)


def groups(table: pa.Table, column: str) -> Texts:
    """[rows] the sensitive column as text, null as MISSING_GROUP; raises SensitiveMissing."""
    if column not in table.column_names:
        raise SensitiveMissing(f"the golden set lacks the sensitive column {column!r} that its manifest names; add it")
    codes, values = _distinct(table[column])
    names = [MISSING_GROUP if value is None else class_name(value) for value in values]
    return np.asarray(np.array(names, dtype=np.str_)[codes])


def _distinct(column: pa.ChunkedArray) -> tuple[Any, list[Any]]:
    """[rows] codes, and the distinct value (None for null) that each code means."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def _as_floats(column: pa.ChunkedArray, name: str) -> Floats:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_temporal(column.type) or pa.types.is_nested(column.type):
        raise FeatureNotNumeric(f"the column {name!r} holds {column.type}; encode it as numbers")
    try:
        # Integers beyond 2^53 lose their last digits in float64, which is what the model would compute with anyway.
        numbers = column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise FeatureNotNumeric(
            f"the column {name!r} holds {column.type}, which is not numeric ({str(error)[:80]}); encode it as numbers"
        ) from error
    return np.asarray(numbers.to_numpy(), dtype=np.float64)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
