"""Between the tensors of the Open Inference Protocol and rows of floats."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.deployer.bundle import Feature
from services.deployer.model_server.http import HttpError
from services.deployer.model_server.models import Floats

MATRIX: Final = "input"
"""The name of the one tensor [n, features] that may be sent instead of a tensor a feature."""
WHOLE: Final[Mapping[str, range]] = {
    f"{sign}INT{bits}": range(0 if sign else -(1 << bits - 1), 1 << (bits if sign else bits - 1))
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
"""Whole numbers by datatype, and which of them it holds."""
NARROW: Final[Mapping[str, Any]] = {"FP32": np.float32, "FP16": np.float16}
DATATYPES: Final = frozenset({"FP64", "BOOL", *NARROW, *WHOLE})
"""Whatever widens to a 64-bit float without loss is taken for any feature; clients need not know what a model holds."""
EXACT: Final = 1 << 53
"""Beyond it, a 64-bit float does not hold every whole number."""
_NUMBERS: Final = frozenset({int, float})
_NULLABLE: Final = frozenset({int, float, type(None)})
_TRUTHS: Final = frozenset({bool, type(None)})


def decode(inputs: Any, features: Sequence[Feature]) -> Floats:
    """Rows [n, f], n ≥ 1, missing as NaN; raises HttpError 400 with a sentence for whatever else was sent."""
    if not isinstance(inputs, list) or not inputs:
        raise HttpError(
            400, f"send `inputs`: a tensor a feature, or one tensor {MATRIX!r} of shape [rows, {len(features)}]"
        )
    tensors: dict[str, dict[str, Any]] = {}
    for tensor in inputs:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise HttpError(400, "each input is an object with name, shape, datatype and data")
        if tensor["name"] in tensors:
            raise HttpError(400, f"the input {tensor['name'][:100]!r} was sent twice")
        tensors[tensor["name"]] = tensor
    names = [feature.name for feature in features]
    if MATRIX in tensors and len(tensors) == 1 and names != [MATRIX]:
        return _matrix(tensors[MATRIX], features)
    # Inputs beyond the model's own are passed over: behind one group, champion and challenger get the same request and
    # may look at different parts of it. A misspelt one is still found, as every feature must be there.
    unknown = sorted(tensors.keys() - set(names))
    columns = []
    for feature in features:
        if feature.name in tensors:
            columns.append(_column(tensors[feature.name], feature))
        else:
            hint = f" (the model has no feature {_few(unknown)}, which was sent)" if unknown else ""
            raise HttpError(
                400, f"the feature {feature.name!r} is missing{hint}; send it, with null where nothing is known"
            )
    rows = len(columns[0])
    for feature, column in zip(features, columns, strict=True):
        if len(column) != rows:
            raise HttpError(400, f"{feature.name!r} has {len(column)} rows and {names[0]!r} has {rows}; send as many")
    return np.column_stack(columns)


def encode(name: str, values: NDArray[Any] | list[Any], datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    """A response tensor; data flattened row by row."""
    data = values if isinstance(values, list) else np.ascontiguousarray(values).reshape(-1)
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def _column(tensor: dict[str, Any], feature: Feature) -> Floats:
    name = feature.name
    shape = _shape(tensor, name)
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise HttpError(400, f"{name!r} must have the shape [rows] or [rows, 1], not {shape}")
    data = tensor.get("data")
    if len(shape) == 2 and isinstance(data, list) and data and isinstance(data[0], list):
        data = _flat(data, 1, name)
    column = _numbers(data, shape[0], tensor, name)
    _check_values(column, feature)
    return column


def _matrix(tensor: dict[str, Any], features: Sequence[Feature]) -> Floats:
    shape = _shape(tensor, MATRIX)
    if len(shape) != 2 or shape[1] != len(features):
        raise HttpError(400, f"{MATRIX!r} must have the shape [rows, {len(features)}], not {shape}")
    data = tensor.get("data")
    if isinstance(data, list) and data and isinstance(data[0], list):
        data = _flat(data, shape[1], MATRIX)
    rows = _numbers(data, shape[0] * shape[1], tensor, MATRIX).reshape(shape)
    for i, feature in enumerate(features):
        _check_values(rows[:, i], feature)
    return rows


def _shape(tensor: dict[str, Any], name: str) -> list[int]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and 0 < size < 1 << 31 for size in shape):
        raise HttpError(400, f"the shape of {name!r} must be a list of positive whole numbers")
    return shape


def _flat(data: list[Any], width: int, name: str) -> list[Any]:
    if not all(isinstance(row, list) and len(row) == width for row in data):
        raise HttpError(400, f"the data of {name!r} must be flat, or rows of {width} values each")
    return list(chain.from_iterable(data))


def _numbers(data: Any, size: int, tensor: dict[str, Any], name: str) -> Floats:
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise HttpError(400, f"the datatype of {name!r} must be one of {', '.join(sorted(DATATYPES))}")
    if not isinstance(data, list) or len(data) != size:
        count = len(data) if isinstance(data, list) else "no list of"
        raise HttpError(400, f"the shape of {name!r} says {size} values, its data has {count}")
    kinds = set(map(type, data))
    if not kinds <= (_TRUTHS if datatype == "BOOL" else _NULLABLE):
        what = "true or false" if datatype == "BOOL" else "numbers"
        raise HttpError(400, f"the data of {name!r} must be {what}, or null where a value is missing")
    if datatype in WHOLE:
        _check_whole(data, kinds, datatype, name)
    values = np.array(data, dtype=np.float64)  # null becomes NaN
    if datatype in NARROW:
        with np.errstate(over="ignore"):
            narrow = values.astype(NARROW[datatype])
        if np.isinf(narrow).any():
            raise HttpError(400, f"a value of {name!r} does not fit {datatype}; send it as FP64")
    return values


def _check_whole(data: list[Any], kinds: set[type], datatype: str, name: str) -> None:
    if float in kinds:
        raise HttpError(400, f"the data of {name!r} has a fraction although its datatype is {datatype}; send FP64")
    if datatype == "INT64":
        return  # as it always was: those beyond 2^53 are rounded, as the model's own arithmetic would
    held, numbers = WHOLE[datatype], data if type(None) not in kinds else [one for one in data if one is not None]
    for number in (min(numbers, default=0), max(numbers, default=0)):
        if number not in held:
            raise HttpError(400, f"a value of {name!r} does not fit {datatype}, which is {held[0]} to {held[-1]}")
        if number > EXACT:
            raise HttpError(400, f"a value of {name!r} is beyond 2^53, where the model would see another number")


def _check_values(column: Floats, feature: Feature) -> None:
    if not feature.nullable and np.isnan(column).any():
        raise HttpError(400, f"the feature {feature.name!r} must not be missing; send a number in place of null")
    if feature.datatype == "INT64" and (np.nan_to_num(column) % 1).any():
        raise HttpError(400, f"the feature {feature.name!r} takes whole numbers only")


def _few(names: list[str]) -> str:
    return ", ".join(repr(name[:100]) for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
