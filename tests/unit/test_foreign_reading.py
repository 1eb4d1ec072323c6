"""Foreign documents: read by names and shapes, in other units, with what is left; and what a model may say of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.foreign import assistant, document, figures, proposal, rules
from services.registry.foreign.fields import Field
from services.registry.foreign.proposal import Proposal, Rule
from shared.errors import Invalid, Malformed, TooLarge


def mapped(whole: Any) -> dict[str, Any]:
    """Every field's value by its name."""
    return {name: one.value for name, one in rules.read(whole).found.items()}


def left(whole: Any) -> dict[str, Any]:
    return document.unclaimed(whole, rules.read(whole).claimed)


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("accuracy", 0.873, ("accuracy", 0.873, "")),
        ("accuracy", "0.873", ("accuracy", 0.873, "")),
        ("accuracy", "87.3 %", ("accuracy", 0.873, "fraction")),
        ("accuracy", 87.3, ("accuracy", 0.873, "fraction")),
        ("trefferquote", "91,2 %", ("trefferquote", 0.912, "fraction")),
        ("latency", "12.5 ms", ("latency_ms", 12.5, "ms")),
        ("latency_s", 0.8, ("latency_ms", 800.0, "ms")),
        ("inference_time", "0,8 s", ("inference_time_ms", 800.0, "ms")),
        ("size_mb", 4.5, ("size_bytes", 4_500_000.0, "bytes")),
        ("rows", "1,234,567", ("rows", 1_234_567.0, "")),
        ("loss", "1e-3", ("loss", 0.001, "")),
    ],
)
def test_a_number_is_understood_with_its_unit(name: str, value: Any, becomes: tuple[str, float, str]) -> None:
    found = figures.figure(name, value)
    assert found is not None and (found.name, found.value, found.unit) == becomes


@pytest.mark.parametrize("value", [True, None, "", "n/a", "NaN", "v1.2.3", [1], "2026-03-01", 10**400, "1" * 100])
def test_what_is_no_number_stays_none(value: Any) -> None:
    assert figures.figure("x", value) is None


@pytest.mark.parametrize(
    "metrics",
    [
        {"metrics": {"auc": 0.9, "f1": 0.8}},
        {"model_performance": {"AUC": "0.9", "F1": "0.8"}},
        {"evalResults": [{"name": "auc", "value": 0.9}, {"name": "f1", "value": "80 %"}]},
        {"scores": [["auc", 0.9], ["f1", 0.8]]},
        {
            "report": {
                "Evaluation Results": {"metrics": [{"metric": "AUC", "score": 0.9}, {"metric": "F1", "score": 0.8}]}
            }
        },
        {"metrics": {"auc": {"value": 0.9}, "f1": {"value": 80, "unit": "%"}}},
    ],
)
def test_metrics_are_found_in_every_shape(metrics: dict[str, Any]) -> None:
    found = {name: value for name, value in mapped(metrics).items() if name.startswith("metrics.")}
    assert found == {"metrics.auc": 0.9, "metrics.f1": 0.8}


def test_metrics_by_split_keep_their_split() -> None:
    found = mapped({"performance": {"train": {"auc": 0.9}, "Test": {"auc": 0.8}}})
    assert found["metrics.train.auc"] == 0.9 and found["metrics.test.auc"] == 0.8
    found = mapped({"results": [{"split": "val", "auc": 0.7}, {"split": "test", "auc": 0.6}]})
    assert found["metrics.validation.auc"] == 0.7 and found["metrics.test.auc"] == 0.6


@pytest.mark.parametrize(
    "features",
    [
        {"features": [{"name": "age", "type": "integer"}, {"name": "job", "dtype": "string"}]},
        {"feature_list": {"age": "int64", "job": "category"}},
        {"inputs": {"columns": ["age", "job"], "dtypes": ["int64", "object"]}},
        {"input_schema": {"age": {"type": "int"}, "job": {"type": "varchar", "levels": 7}}},
        {"signature": {"inputs": '[{"name": "age", "type": "long"}, {"name": "job", "type": "string"}]'}},
    ],
)
def test_features_are_found_in_every_shape(features: dict[str, Any]) -> None:
    found = mapped(features)
    assert (found["inputs.age"], found["inputs.job"]) == ("INT64", "BYTES")


@pytest.mark.parametrize(
    ("charts", "name", "kind"),
    [
        ({"roc_curve": {"fpr": [0, 0.1, 1], "tpr": [0, 0.8, 1]}}, "roc_curve", "roc_curve"),
        ({"anything": [{"fpr": 0, "tpr": 0}, {"fpr": 1, "tpr": 1}]}, "anything", "roc_curve"),
        ({"plots": [{"title": "PR", "data": {"recall": [0, 1], "precision": [1, 0]}}]}, "pr", "precision_recall_curve"),
        ({"history": {"loss": [3, 2], "val_loss": [4, 3]}}, "history", "learning_curve"),
        ({"confusionMatrix": [[5, 1], [2, 8]]}, "confusion_matrix", "confusion_matrix"),
        ({"x": {"confusion": {"a": {"a": 1, "b": 2}, "b": {"a": 0, "b": 3}}}}, "confusion", "confusion_matrix"),
        ({"feature importances": {"age": 0.7, "job": "30 %"}}, "feature_importances", "feature_importance"),
        (
            {"importance": [{"feature": "age", "gain": 3}, {"feature": "job", "gain": 1}]},
            "importance",
            "feature_importance",
        ),
    ],
)
def test_charts_are_told_by_shape_and_name(charts: dict[str, Any], name: str, kind: str) -> None:
    assert mapped(charts)[f"charts.{name}"]["type"] == kind
    assert left(charts) == {} or "title" in json.dumps(charts)


def test_remarks_beside_a_chart_are_not_lost() -> None:
    whole = {"roc_curve": {"fpr": [0, 1], "tpr": [0, 1], "note": "smoothed"}}
    assert left(whole) == {"/roc_curve/note": "smoothed"}


MODEL_INDEX = {
    "license": "llama3.1",
    "base_model": ["meta-llama/Llama-3.1-8B"],
    "pipeline_tag": "summarization",
    "model-index": [
        {
            "name": "bank-summarizer",
            "results": [
                {
                    "task": {"type": "summarization"},
                    "dataset": {"name": "CNN", "type": "cnn_dailymail"},
                    "metrics": [{"type": "rouge1", "value": 44.1, "name": "ROUGE-1", "verified": False}],
                },
                {"dataset": {"name": "XSum", "type": "xsum"}, "metrics": [{"type": "rouge1", "value": 39.0}]},
            ],
        }
    ],
}


def test_a_model_index_of_hugging_face() -> None:
    found = mapped(MODEL_INDEX)
    assert found["name"] == "bank-summarizer" and found["task"] == "summarization" and found["licence"] == "llama3.1"
    assert (found["metrics.cnn.rouge1"], found["metrics.x_sum.rouge1"]) == (44.1, 39.0)
    assert found["base.0"].startswith("mm:model/meta-llama-llama-3.1-8b-x")


def test_an_mlmodel_and_a_model_package() -> None:
    mlmodel = {
        "flavors": {"python_function": {}, "sklearn": {"sklearn_version": "1.7"}},
        "run_id": "r17",
        "utc_time_created": "2026-03-01 10:00:00.5",
        "signature": {"inputs": '[{"name": "age", "type": "double"}]', "outputs": None},
    }
    found = mapped(mlmodel)
    assert (found["tags.framework"], found["run_id"], found["inputs.age"]) == ("sklearn", "r17", "FP64")
    assert "/flavors" in "".join(left(mlmodel))
    package = {
        "ModelPackageGroupName": "churn",
        "CreationTime": 1767225600.0,
        "CustomerMetadataProperties": {"team": "crm"},
        "binary_classification_metrics": {
            "auc": {"value": 0.95, "standard_deviation": 0.01},
            "receiver_operating_characteristic_curve": {"false_positive_rates": [0, 1], "true_positive_rates": [0, 1]},
        },
    }
    found = mapped(package)
    assert (found["name"], found["tags.team"], found["metrics.auc"]) == ("churn", "crm", 0.95)
    assert found["tags.created_at"] == "2026-01-01T00:00:00Z"
    assert found["charts.receiver_operating_characteristic_curve"]["type"] == "roc_curve"


def test_an_unknown_licence_is_kept_and_near_ones_are_named() -> None:
    field = rules.read({"license": "lama3.1"}).found["licence"]
    assert field.value == "lama3.1" and field.confidence == 0.7 and "llama3.1" in field.reason


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["metrics", "features", "roc_curve", "name", "tags", "params", "results", "dataset", "signature"]
            )
            | st.sampled_from(["value", "unit", "type", "fpr", "tpr", "history", "importance", "flavors", "base_model"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5) | st.sampled_from(["metrics", "model"]), json_values, min_size=1, max_size=5)
)
def test_any_json_is_read_and_every_leaf_is_a_field_or_left(whole: dict[str, Any]) -> None:
    reading = rules.read(whole)
    rest = document.unclaimed(whole, reading.claimed)
    for pointer, value in rest.items():
        assert document.at(whole, document.read(pointer)) == value
    for one in reading.found.values():
        if one.source is not None:
            document.at(whole, document.read(one.source))
    for pointer, value in document.nodes(whole):
        if not isinstance(value, dict | list):
            within = any(pointer[:length] in reading.claimed for length in range(len(pointer) + 1))
            kept = any(document.text(pointer[:length]) in rest for length in range(len(pointer) + 1))
            assert within or kept, pointer


def test_a_document_is_bounded() -> None:
    with pytest.raises(TooLarge):
        document.parse(b'{"a":"' + b"x" * document.MOST_BYTES + b'"}')
    with pytest.raises(Invalid, match="keys and items"):
        document.parse(json.dumps({f"k{number}": 1 for number in range(document.MOST_NODES + 1)}).encode())
    with pytest.raises(Malformed):
        document.parse(b'{"a":' * 80 + b"1" + b"}" * 80)
    for empty in (b"{}", b"[]", b"3", b'"text"', b"null"):
        with pytest.raises(Invalid):
            document.parse(empty)


# What a model may say

ODD = {"Modellname": "Prognose", "Kennzahlen": {"Trefferquote": "91,2 %", "Laufzeit": "0,8 s"}, "Stelle": "Abt. 7"}


def said(*pairs: dict[str, Any]) -> tuple[list[Field], list[str]]:
    draft = proposal.drafted(ODD)
    return assistant.mapped(ODD, draft.unmapped, draft.fields, json.dumps({"fields": list(pairs)}))


def test_a_model_says_where_and_the_document_says_what() -> None:
    found, refused = said({"field": "metrics.accuracy", "pointer": "/Kennzahlen/Trefferquote", "reason": "hit rate"})
    assert refused == []
    assert (found[0].field, found[0].value, found[0].by, found[0].confidence) == (
        "metrics.accuracy",
        0.912,
        "model",
        0.6,
    )


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        ({"field": "metrics.auc", "pointer": "/Kennzahlen/AUC"}, "nothing at"),
        ({"field": "metrics.auc", "pointer": "/Kennzahlen/Trefferquote", "value": 0.99}, "not the document's"),
        ({"field": "metrics.auc", "pointer": "/Stelle"}, "no number"),
        ({"field": "secret.thing", "pointer": "/Stelle"}, "is no field"),
        ({"field": "name", "pointer": "/Stelle"}, "taken"),
        ({"field": "tags.x", "pointer": "/Modellname"}, "mapped already"),
        ({"field": "tags.x", "pointer": "Stelle"}, "no JSON pointer"),
    ],
)
def test_a_model_cannot_invent_anything(pair: dict[str, Any], why: str) -> None:
    found, refused = said(pair)
    assert found == [] and why in refused[0]


@pytest.mark.parametrize("text", ["", "sure!", "[]", '{"fields": 3}', '{"fields": [{"field": 1}]}', "{" * 200])
def test_an_answer_of_another_form_is_none(text: str) -> None:
    assert assistant.mapped(ODD, {"/Stelle": "Abt. 7"}, {}, text)[0] == []


def test_what_is_shown_to_a_model_is_bounded() -> None:
    lines = assistant.shown({"/a": {f"k{number}": "x" * 1000 for number in range(1000)}})
    assert len(lines) == assistant.MOST_SHOWN and max(len(line["value"]) for line in lines) <= assistant.PREVIEW


# Corrections and mappings


def a_proposal(whole: Any) -> Proposal:
    draft = proposal.drafted(whole)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    shape = document.shape(whole)
    return Proposal(
        uuid4(), "sha256:" + "0" * 64, shape, None, tuple(draft.fields.values()), draft.unmapped, (), "user:ada", now
    )


def test_a_correction_takes_another_place_a_value_or_nothing() -> None:
    found = proposal.corrected(
        ODD,
        a_proposal(ODD),
        [
            Rule(field="metrics.accuracy", source="/Kennzahlen/Trefferquote"),
            Rule(field="task", value="regression"),
            Rule(field="name"),
        ],
    )
    assert found.group("metrics") == {"accuracy": 0.912} and found.field("task") == "regression"
    assert found.field("name") is None
    assert found.unmapped == {"/Kennzahlen/Laufzeit": "0,8 s", "/Stelle": "Abt. 7", "/Modellname": "Prognose"}
    with pytest.raises(Invalid, match="no number"):
        proposal.corrected(ODD, found, [Rule(field="metrics.x", source="/Stelle")])


def test_a_kept_mapping_says_the_same_of_the_next_document_of_its_structure() -> None:
    rule = Rule(field="metrics.accuracy", source="/Kennzahlen/Trefferquote")
    kept = proposal.kept(ODD, proposal.corrected(ODD, a_proposal(ODD), [rule, Rule(field="task", value="regression")]))
    other = {"Modellname": "Zweite", "Kennzahlen": {"Trefferquote": "80 %", "Laufzeit": "1 s"}, "Stelle": "B"}
    assert document.shape(other) == document.shape(ODD)
    draft = proposal.drafted(other, kept)
    assert draft.fields["metrics.accuracy"].value == 0.8 and draft.fields["metrics.accuracy"].by == "mapping"
    assert draft.fields["task"].value == "regression" and draft.fields["name"].value == "Zweite"
    assert "/Kennzahlen/Trefferquote" not in draft.unmapped
    assert document.shape({**other, "neu": 1}) != document.shape(other)


def test_a_mapping_can_leave_a_field_out() -> None:
    whole = {"name": "a", "metrics": {"auc": 0.9}, "tags": {"internal": "yes"}}
    dropped = proposal.corrected(whole, a_proposal(whole), [Rule(field="tags.internal")])
    draft = proposal.drafted(whole, proposal.kept(whole, replace(dropped)))
    assert "tags.internal" not in draft.fields and draft.unmapped == {"/tags": {"internal": "yes"}}
