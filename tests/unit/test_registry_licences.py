"""Licences: how they are read, what they ask along bases and data, and the bill of material that says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.domain.lineage import Finding
from services.registry.licences import attribution, bom, expressions
from services.registry.licences.closure import Closure, Part, Path, Reached, Step
from services.registry.licences.obligations import Judgement, judge
from services.registry.licences.terms import table
from services.registry.scanning import Scan, Statement
from shared.ids import sha256

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)


def part(kind: str, name: str, licence: str | None, version: int = 1, **content: Any) -> Part:
    manifest = {
        "files": [{"path": "a.parquet", "digest": sha256(b"a"), "rows": 7, "split": "train"}],
        "source": "https://example.org/census",
        "licence": licence,
        "sensitivity": "internal",
        "sensitive": ["sex"],
    }
    empty = {"inputs": [], "outputs": []}
    document = {
        "kind": kind,
        "artefact": None if kind == "dataset" else {"digest": sha256(name.encode()), "format": "onnx"},
        "manifest": manifest if kind == "dataset" else None,
        "licence": None if kind == "dataset" else licence,
        "signature": empty,
        "task": None,
        "training": {},
        "prompts": [],
        **content,
    }
    urn = f"mm:{kind}/{name}"
    return Part(urn, version, sha256(urn.encode()), 1, document, "", {}, {}, "user:ada", NOW, 10)


def closure(root: Part, *reached: tuple[str, Part], missing: tuple[Path, ...] = ()) -> Closure:
    """Each part one step from the root."""
    found = tuple(Reached(one, (Step(relation, one.node),)) for relation, one in reached)  # type: ignore[arg-type]
    return Closure(root, found, missing, tuple((root.node, one.node) for _, one in reached))


def judged(licence: str | None, *reached: tuple[str, Part], name: str = "mine") -> Judgement:
    return judge(closure(part("model", name, licence), *reached))


@pytest.mark.parametrize(
    ("written", "expression"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("llama3.1", "llama3.1"),
        ("Llama 3.1 Community License", "llama3.1"),
        ("MIT OR (apache-2.0 AND llama3.1)", "MIT OR (Apache-2.0 AND llama3.1)"),
        ("creativeml-openrail-m or mit", "creativeml-openrail-m OR MIT"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("openrail++", "openrail++"),
        ("cc-by-nc", "CC-BY-NC-4.0"),
    ],
)
def test_a_licence_is_understood_as_people_write_it(written: str, expression: str) -> None:
    assert expressions.read(written).expression == expression


@pytest.mark.parametrize(
    ("written", "near"), [("lama3.1", "llama3.1"), ("Apache-2.O", "Apache-2.0"), ("mit with apache-2.0", "Apache-2.0")]
)
def test_an_unknown_licence_is_kept_with_what_it_may_have_meant(written: str, near: str) -> None:
    found = expressions.read(written)
    assert not found.is_known and found.written == written and near in found.near


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="MITapache-2.0 ()ORANDWITH\x1f☃", max_size=60) | st.text(max_size=40))
def test_no_text_breaks_the_reading(text: str) -> None:
    found = expressions.read(text)
    assert found.written == text
    if found.is_known:
        assert found.alternatives and expressions.read(found.expression or "").is_known


def test_an_expression_with_too_many_choices_is_unknown_and_costs_nothing() -> None:
    assert not expressions.read(" AND ".join(["(MIT OR ISC)"] * 12)).is_known


def test_every_row_of_the_table_has_its_source_and_is_read_by_its_names() -> None:
    assert len(table()) > 80
    for terms in table().values():
        assert terms.source
        for name in (terms.key, terms.name, *terms.names):
            assert expressions.read(name).expression == terms.key, name


def test_a_model_under_apache_from_a_non_commercial_base_is_a_conflict_with_its_path() -> None:
    base = part("model", "base", "cc-by-nc-4.0")
    found = judged("Apache-2.0", ("base", base))
    (conflict,) = found.conflicts
    assert (conflict.kind, conflict.severity, conflict.licence) == ("non-commercial", "conflict", "CC-BY-NC-4.0")
    assert conflict.path == ("mm:model/mine@1", "mm:model/base@1")
    assert found.effective == "Apache-2.0 AND CC-BY-NC-4.0" and found.commercial == "forbidden"


@pytest.mark.parametrize(
    ("declared", "base", "kinds"),
    [
        ("MIT", "Apache-2.0", set()),
        ("MIT", "GPL-3.0-only", {"share-alike"}),
        ("AGPL-3.0-only", "GPL-3.0-only", set()),
        ("MIT", "CC-BY-ND-4.0", {"no-derivatives"}),
        (None, "CC-BY-ND-4.0", {"no-derivatives"}),
        ("Apache-2.0", "bigscience-openrail-m", {"restrictions-dropped"}),
        ("bigscience-openrail-m", "bigscience-openrail-m", set()),
        ("llama3.1", "llama3.1", {"naming"}),
        ("Apache-2.0", "MIT OR CC-BY-NC-4.0", set()),
        ("MIT OR GPL-3.0-only", "GPL-3.0-or-later", set()),
        ("CC-BY-NC-4.0", "mistral-research", set()),
    ],
)
def test_what_contradicts_what(declared: str | None, base: str, kinds: set[str]) -> None:
    assert {one.kind for one in judged(declared, ("base", part("model", "base", base))).conflicts} == kinds


def test_a_llama_by_its_name_only_has_obligations() -> None:
    found = judged("llama3.3", ("base", part("model", "llama-base", "llama3.3")), name="llama-tuned")
    assert found.conflicts == ()
    texts = [one.text for one in found.obligations]
    assert any("Built with Llama" in text for text in texts) and any("700,000,000" in text for text in texts)


def test_what_comes_through_data_is_for_a_person_and_what_is_only_measured_on_is_nothing() -> None:
    data = part("dataset", "scraped", "cc-by-nc-sa-4.0")
    found = judged("MIT", ("dataset", data))
    assert {one.severity for one in found.conflicts} == {"review"} and len(found.conflicts) == 2
    assert judged("MIT", ("golden-set", data)).conflicts == ()


def test_what_cannot_be_judged_is_said() -> None:
    root = part("model", "mine", "in-house-1")
    step = Step("base", "mm:model/gone")
    found = judge(closure(root, ("base", part("model", "base", None)), missing=((step,),)))
    reasons = {gap.node: gap.reason for gap in found.gaps}
    assert reasons["mm:model/mine@1"] == "unknown: in-house-1"
    assert reasons["mm:model/base@1"] == "no licence is declared"
    assert "mm:model/mine@1 ← base mm:model/gone" in reasons["mm:model/gone"]
    assert found.declared is not None and found.declared.written == "in-house-1" and found.conflicts == ()


def an_evaluation(at: datetime) -> Finding:
    measure = {"value": 0.87, "low": 0.86, "high": 0.88}
    document = {"measures": {"roc_auc": measure}, "golden_set": {"urn": "mm:dataset/census", "version": 1}}
    return Finding("evaluation", "e1", "mm:model/mine", 1, at, document)


def a_closure() -> Closure:
    tensor = {"name": "age", "datatype": "FP64", "shape": [-1, 1]}
    root = part(
        "model",
        "mine",
        "Apache-2.0 AND llama3.1",
        task="classification",
        signature={"inputs": [tensor], "outputs": []},
        training={"parameters": {"lr": 0.1}},
    )
    return closure(
        root,
        ("base", part("model", "llama-base", "llama3.1")),
        ("dataset", part("dataset", "census", "CC0-1.0")),
        ("prompt", part("prompt", "clerk", "weird terms ☃")),
        missing=((Step("base", "mm:model/gone"),),),
    )


def test_the_bill_of_material_is_valid_and_the_same_for_the_same_state() -> None:
    found = a_closure()
    scan = Scan(sha256(b"mine"), "torch", (Statement(scanner="picklescan", version="1", result="suspicious"),), NOW)
    evaluations, scans = [an_evaluation(NOW + timedelta(hours=1))], {scan.digest: scan}
    document = bom.build(found, judge(found), evaluations, scans, "http://front")
    text = json.dumps(document)
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text) is None
    assert json.dumps(bom.build(found, judge(found), evaluations, scans, "http://front")) == text
    before = bom.build(found, judge(found), [], scans, "http://front")
    assert before["serialNumber"] == document["serialNumber"] and before["version"] == 1 and document["version"] == 2
    assert document["metadata"]["timestamp"] == "2026-11-20T11:00:00Z"

    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["modelCard"]["modelParameters"]["inputs"] == [{"format": "age: FP64 [-1, 1]"}]
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"ref": "mm:dataset/census@1"}]
    (metric,) = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metric["confidenceInterval"] == {"lowerBound": "0.86", "upperBound": "0.88"}
    assert [one["name"] for one in model["pedigree"]["ancestors"]] == ["llama-base", "gone"]
    assert model["licenses"][0]["license"]["id"] == "Apache-2.0" and "name" in model["licenses"][1]["license"]
    assert {one["bom-ref"] for one in document["components"]} == {
        "mm:model/llama-base@1",
        "mm:dataset/census@1",
        "mm:prompt/clerk@1",
    }
    assert document["compositions"][0]["aggregate"] == "incomplete"
    said = {
        one["annotator"]["component"]["name"]: one["text"]
        for one in document["annotations"]
        if one["subjects"] == ["mm:model/mine@1"]
    }
    assert said["picklescan"].startswith("suspicious") and "holds pickles" in said["mintmark-formats"]


def test_the_attributions_name_every_part_its_licence_and_its_notice() -> None:
    found = a_closure()
    text = attribution.text(found, judge(found))
    for piece in (
        "Comes in by: mm:model/mine@1 ← base mm:model/llama-base@1",
        "Copyright © Meta Platforms",
        "Note: show 'Built with Llama' where users see it",
        "Source: https://example.org/census",
        "weird terms ☃ (unknown)",
        "not registered here",
    ):
        assert piece in text, text
