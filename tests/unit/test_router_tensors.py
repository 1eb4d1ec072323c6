"""Tensors as bytes and as values: numpy says what is right, and no bytes whatever make anything but a clear refusal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.router.errors import SignatureMismatch, TensorMalformed
from services.router.gateway.binary_extension import filled, parted
from services.router.gateway.oip import check
from services.router.gateway.snapshot_rows import Tensor
from services.router.gateway.tensors import FORMATS, MOST_DIMENSIONS, MOST_VALUES, count_of, raw_of, values_of
from shared.errors import MintmarkError, TooLarge

DTYPES = {
    "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


@given(st.data(), st.sampled_from(sorted(DTYPES)))
def test_values_are_numpys_and_go_back_to_the_same_bytes(data: st.DataObject, datatype: str) -> None:
    array = data.draw(arrays.arrays(DTYPES[datatype], st.integers(0, 20)))
    raw = array.tobytes()
    if array.dtype.kind == "f" and np.isinf(array).any():
        with pytest.raises(TensorMalformed, match="infinity"):
            values_of("t", datatype, array.size, raw)
        return
    found = values_of("t", datatype, array.size, raw)
    expected = [None if isinstance(one, float) and math.isnan(one) else one for one in array.tolist()]
    assert found == expected and [type(one) for one in found] == [type(one) for one in expected]
    again = np.frombuffer(raw_of(datatype, found), DTYPES[datatype])
    assert np.array_equal(again, array, equal_nan=array.dtype.kind == "f")


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_brain_floats_are_the_upper_half_of_single_ones(values: list[float]) -> None:
    exact = [math.ldexp(round(math.ldexp(m, 8)), e - 8) for m, e in map(math.frexp, values) if abs(m) > 0]
    exact = [one for one in exact if 1e-30 < abs(one) < 3e38]
    assert values_of("t", "BF16", len(exact), raw_of("BF16", exact)) == exact


@given(st.lists(st.text().filter(lambda text: "\0" not in text)))
def test_texts_go_there_and_back(texts: list[str]) -> None:
    assert values_of("t", "BYTES", len(texts), raw_of("BYTES", texts)) == texts


@given(st.sampled_from([*FORMATS, "BYTES"]), st.integers(0, 40), st.binary(max_size=64))
def test_any_bytes_are_values_or_a_refusal_that_names_the_tensor(datatype: str, count: int, raw: bytes) -> None:
    try:
        assert len(values_of("the tensor", datatype, count, raw)) == count
    except TensorMalformed as error:
        assert "the tensor" in error.message and error.extra == {"tensor": "the tensor"}


KEYS = st.sampled_from(["name", "shape", "datatype", "parameters", "binary_data_size", "data"])
ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
)


@given(st.binary(max_size=60), st.binary(max_size=8), ANYTHING)
def test_no_request_whatever_breaks_anything_but_itself(body: bytes, length: bytes, tensor: Any) -> None:
    for attempt in (lambda: parted(body, length), lambda: filled({"inputs": [tensor]}, body)):
        try:
            attempt()
        except MintmarkError as error:
            assert 400 <= error.status < 500


def test_a_tensor_of_too_many_values_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge, match=str(MOST_VALUES)):
        count_of("t", "FP32", [MOST_VALUES, 2])


MANY = [1] * (MOST_DIMENSIONS + 1)


def test_a_shape_of_too_many_dimensions_is_refused_before_it_is_multiplied() -> None:
    assert count_of("t", "FP32", MANY[1:]) == 1
    with pytest.raises(TensorMalformed, match="65 dimensions"):
        count_of("t", "FP32", MANY)


def test_a_shape_of_too_many_dimensions_does_not_fit_even_a_signature_without_a_shape() -> None:
    declared = {"t": Tensor("FP32")}
    check({"name": "t", "datatype": "FP32", "shape": MANY[1:], "data": [0.5]}, declared)
    with pytest.raises(SignatureMismatch, match="65 dimensions"):
        check({"name": "t", "datatype": "FP32", "shape": MANY, "data": [0.5]}, declared)


WRONG: list[tuple[str, Any]] = [
    ("INT8", [300]), ("INT64", [1.5]), ("BOOL", [1]), ("BYTES", [1]), ("FP32", ["x"]), ("FP32", 1),
]  # fmt: skip


@pytest.mark.parametrize(("datatype", "values"), WRONG)
def test_an_answer_that_is_not_its_datatype_is_no_bytes(datatype: str, values: Any) -> None:
    with pytest.raises(ValueError):
        raw_of(datatype, values)
