"""What a row keeps of a model's answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.gateway.rows import Reading


def tensor(name: str, data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": "FP64", "shape": shape, "data": data}


@pytest.mark.parametrize(
    ("data", "shape", "score"),
    [
        ([0.7], [1], 0.7),
        ([0.7, 0.1], [2], 0.7),
        ([0.7, 0.1], [2, 1], 0.7),
        ([0.3, 0.7, 0.9, 0.1], [2, 2], 0.7),
        ([[0.3, 0.7], [0.9, 0.1]], [2, 2], 0.7),
        ([[0.7], [0.1]], [2, 1], 0.7),
        ([0.7, 0.1], None, 0.7),
        ([0.2, 0.3, 0.5], [1, 3], None),
        ([], [0], None),
        (["x"], [1], None),
        ("x", [1], None),
        (None, None, None),
    ],
)
def test_the_score_is_the_first_rows_probability_of_the_positive_class(
    data: Any, shape: list[int] | None, score: float | None
) -> None:
    assert Reading({"outputs": [tensor("probability", data, shape)]}).score == score


@pytest.mark.parametrize(
    ("data", "label"), [([1, 0], "1"), ([1.0], "1"), ([True], "1"), (["yes"], "yes"), ([[0]], "0")]
)
def test_the_prediction_is_the_first_rows_label(data: Any, label: str) -> None:
    assert Reading({"outputs": [tensor("label", data)]}).prediction == label


def test_shap_values_stand_apart_and_not_twice() -> None:
    answer = {
        "model_name": "m",
        "outputs": [
            tensor("probability", [0.7, 0.2]),
            tensor("shap_values", [1.0, 2.0, 3.0, 4.0], [2, 2]),
            tensor("shap_base", [0.5, 0.5]),
        ],
    }
    reading = Reading(answer, ("AGEP", "MAR"))
    assert reading.shap is not None
    assert json.loads(reading.shap) == {"base": [0.5, 0.5], "values": [[1, 2], [3, 4]], "features": ["AGEP", "MAR"]}
    assert json.loads(reading.output) == {"model_name": "m", "outputs": [answer["outputs"][0]]}


def test_without_shap_values_the_answer_is_kept_whole() -> None:
    reading = Reading({"outputs": [tensor("probability", [0.7])], "id": "x"})
    assert reading.shap is None and json.loads(reading.output)["id"] == "x"


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_tensors = st.fixed_dictionaries(
    {"name": st.sampled_from(["probability", "label", "shap_values", "shap_base", "other"])},
    optional={"data": _json, "shape": _json, "parameters": _json},
)


@given(st.dictionaries(st.sampled_from(["outputs", "id"]), st.lists(_tensors | _json) | _json))
def test_no_answer_however_odd_breaks_its_row(answer: dict[str, Any]) -> None:
    reading = Reading(answer)
    assert reading.score is None or isinstance(reading.score, float)
    json.loads(reading.output)
