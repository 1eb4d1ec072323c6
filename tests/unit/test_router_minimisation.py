"""What a row keeps by a group's field rules: each action on each kind of field, and what happens when one cannot be."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from services.router.errors import SealBroken
from services.router.gateway.minimisation import CONSENT_ALONE, GroupKeys, Minimiser, Record
from services.router.gateway.minimisation.masks import mask
from services.router.group_settings import Rows
from services.router.tables.errors import FilterRefused
from services.router.tables.filters import holds, read_filter, read_filters

KEYS = GroupKeys("default", "g", b"s" * 32, b"d" * 32)
REQUEST = "0190c0de-0000-7000-8000-000000000001"


def record(**changes: Any) -> Record:
    body = {
        "id": "ada", "inputs": [{"name": "AGEP", "data": [42.0]}, {"name": "MAR", "data": [1]}],
        "messages": [{"content": "write to ada@example.com"}, {"content": "or call +49 30 1234567"}],
        "metadata": {"consent": "yes", "team": "red"},
    }  # fmt: skip
    whole: dict[str, Any] = {
        "request_id": REQUEST, "unit": "ada", "trace_id": "t" * 32, "requester": "user:bo", "client_request_id": "c-1",
        "features": b'{"AGEP":42.0,"MAR":1}', "input": orjson.dumps(body), "output": b'{"text":"ok"}', "shap": b"{}",
        "tags": {}, "score": 0.5, "prediction": "1",
    }  # fmt: skip
    return Record(**{**whole, **changes})


def applied(rules: list[tuple[str, str]], keys: GroupKeys = KEYS, **changes: Any) -> tuple[Record, int]:
    rows = Rows.model_validate({"fields": [{"field": field, "action": action} for field, action in rules]})
    minimiser = Minimiser.of(rows, keys)
    assert minimiser is not None
    kept = record(**changes)
    return kept, minimiser.apply(kept, {})


def test_a_group_without_rules_has_no_minimiser() -> None:
    assert Minimiser.of(Rows(), KEYS) is None


def test_a_dropped_feature_is_gone_from_features_and_from_the_tensor_in_the_input() -> None:
    kept, failed = applied([("features.AGEP", "drop")])
    assert failed == 0
    assert orjson.loads(kept.features or b"") == {"MAR": 1}
    tensors = orjson.loads(kept.input or b"")["inputs"]
    assert tensors == [{"name": "AGEP", "data": None}, {"name": "MAR", "data": [1]}]
    assert b"42" not in (kept.input or b"") + (kept.features or b"")


@pytest.mark.parametrize("action", ["drop", "hash", "encrypt", "mask"])
def test_what_a_hidden_feature_weighed_is_hidden_too(action: str) -> None:
    shap = {"base": [0.5], "values": [[1.0, -2.0], [3.0, -4.0]], "features": ["AGEP", "MAR"]}
    made, failed = applied([("features.MAR", action)], shap=orjson.dumps(shap))
    assert failed == 0
    assert orjson.loads(made.shap or b"") == {**shap, "values": [[1.0, None], [3.0, None]]}
    of_classes = {**shap, "values": [[[1.0, -2.0], [3.0, -4.0]]]}
    made, _ = applied([("features", action)], shap=orjson.dumps(of_classes))
    assert orjson.loads(made.shap or b"")["values"] == [[[None, None], [None, None]]]


def test_a_hashed_unit_is_the_same_hash_wherever_the_input_repeats_it_and_another_in_another_group() -> None:
    kept, _ = applied([("unit", "hash")])
    assert kept.unit == KEYS.hashed(b"ada") != GroupKeys("default", "h", b"t" * 32).hashed(b"ada")
    assert orjson.loads(kept.input or b"")["id"] == kept.unit


def test_what_is_encrypted_can_be_opened_in_its_own_group_only() -> None:
    kept, _ = applied([("input.messages[*].content", "encrypt"), ("unit", "encrypt")])
    first = orjson.loads(kept.input or b"")["messages"][0]["content"]
    assert first.startswith("enc:v1:") and b"example.com" not in (kept.input or b"")
    assert KEYS.opened(first) == "write to ada@example.com"
    assert KEYS.opened(kept.unit) == "ada"
    with pytest.raises(SealBroken):
        GroupKeys("default", "other", b"", b"d" * 32).opened(first)
    again, _ = applied([("unit", "encrypt")])
    assert again.unit == kept.unit, "a unit must stay findable"


def test_masks_leave_the_rest_of_a_text() -> None:
    kept, _ = applied([("input", "mask")])
    said = [one["content"] for one in orjson.loads(kept.input or b"")["messages"]]
    assert said == ["write to [email]", "or call [phone]"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("pay 4111 1111 1111 1111 now", "pay [card] now"),
        ("order 4111 1111 1111 1112", "order 4111 1111 1111 1112"),
        ("to DE89 3704 0044 0532 0130 00", "to [iban]"),
        ("ssn 078-05-1120", "ssn [ssn]"),
        ("from 10.1.2.3 to 999.1.2.3", "from [ip] to 999.1.2.3"),
        ("a.b+c@mail.example.org, bo", "[email], bo"),
        ("score 0.12345678901234567", "score 0.12345678901234567"),
    ],
)
def test_what_a_mask_takes_for_personal(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_a_rule_that_cannot_be_applied_costs_its_field_and_no_row_and_is_counted() -> None:
    kept, failed = applied([("features.AGEP", "hash"), ("output.text", "drop")], GroupKeys("default", "g"))
    assert (failed, kept.features, kept.input) == (1, None, None)
    assert orjson.loads(kept.output or b"") == {}
    kept, failed = applied([("unit", "hash")], GroupKeys("default", "g"))
    assert (failed, kept.unit, kept.input) == (1, REQUEST, None)
    kept, failed = applied([("input.a", "drop")], input=b"{no json")
    assert (failed, kept.input) == (1, None)


def test_columns_that_cannot_be_null_say_the_request_itself() -> None:
    kept, _ = applied([("unit", "drop"), ("trace_id", "drop"), ("requester", "drop"), ("score", "drop")])
    assert (kept.unit, kept.trace_id) == (REQUEST, REQUEST.replace("-", ""))
    assert (kept.requester, kept.score) == (None, None)
    assert b'"ada"' not in (kept.input or b"")


@pytest.mark.parametrize(
    ("said", "content", "somebody"),
    [("yes", True, True), ("minimise", False, True), ("none", False, False), ("what?", False, False)],
)
def test_consent_of_the_header_decides_what_is_kept(said: str, content: bool, somebody: bool) -> None:
    kept = record()
    CONSENT_ALONE.apply(kept, {b"x-mintmark-consent": said.encode()})
    assert (kept.input is not None, kept.unit == "ada") == (content, somebody)
    assert (kept.requester is not None, kept.output is not None) == (somebody, content)
    assert kept.tags.get("consent") == (None if content else "minimise" if somebody else "none")


def test_refused_consent_leaves_how_a_request_was_routed_and_which_guards_tripped() -> None:
    note = {"name": "pii", "on": "input", "outcome": "blocked", "ms": 1.5, "reason": "found ada@example.com"}
    kept = record(
        tags={
            "client": {"customer": "ada"}, "guards": [note], "cache": "hit",
            "route": {"by": "rule", "rule": 1, "to": "m@2", "bucket": 7},
            "attempts": [{"to": "m@2"}], "gave_way": "m@2 is away", "failed_over": True,
            "drawn": {"urn": "m", "version": 2},
        }
    )  # fmt: skip
    CONSENT_ALONE.apply(kept, {b"x-mintmark-consent": b"none"})
    assert kept.tags == {
        "consent": "none", "guards": [{"name": "pii", "on": "input", "outcome": "blocked"}],
        "route": {"by": "rule", "rule": 1, "to": "m@2"}, "gave_way": "m@2 is away", "failed_over": True, "cache": "hit",
        "drawn": {"urn": "m", "version": 2},
    }  # fmt: skip


@pytest.mark.parametrize(("field", "action"), [("tags", "drop"), ("tags", "hash"), ("tags.*", "encrypt")])
def test_no_field_rule_hides_what_chose_the_version(field: str, action: str) -> None:
    routing = {"failed_over": True, "drawn": {"urn": "m", "version": 2}, "route": {"by": "rule", "to": "m@2"}}
    tags = {**routing, "route": {**routing["route"], "bucket": 7}, "client": {"customer": "ada"}}  # type: ignore[dict-item]
    kept, failed = applied([(field, action)], tags=tags)
    assert failed == 0
    assert {name: kept.tags[name] for name in routing} == routing
    assert b"ada" not in orjson.dumps(kept.tags)
    kept, _ = applied([("tags.client", "drop")], tags=tags)
    assert kept.tags == {**routing, "route": tags["route"]}


def test_the_stricter_of_header_and_body_counts_and_absence_is_what_the_group_says() -> None:
    rows = Rows.model_validate({"consent": {"path": "metadata.consent", "when_absent": "none"}})
    minimiser = Minimiser.of(rows, KEYS)
    assert minimiser is not None
    given = record()
    minimiser.apply(given, {})
    assert given.input is not None
    refused = record()
    minimiser.apply(refused, {b"x-mintmark-consent": b"none"})
    assert (refused.input, refused.unit) == (None, REQUEST)
    silent = record(input=b"{}")
    minimiser.apply(silent, {})
    assert (silent.input, silent.output, silent.requester) == (None, None, None)


@pytest.mark.parametrize("field", ["inputs", "input..a", "unit.name", "score", "input[", "input.a b", "request_id", ""])
def test_a_field_that_is_none_is_refused(field: str) -> None:
    with pytest.raises(ValidationError):
        Rows.model_validate({"fields": [{"field": field, "action": "hash"}]})


@pytest.mark.parametrize(
    "text",
    [
        "statuss=1", "status=x", "unit", "request_id=7", "score=nan", "features>3", "unit.a=1",
        "received_at>2026-01-01", "status in 3",
    ],
)  # fmt: skip
def test_a_filter_that_is_none_is_refused_with_what_to_change(text: str) -> None:
    with pytest.raises(FilterRefused):
        read_filter(text)


def test_filters_are_read_as_people_write_them() -> None:
    assert read_filter("status >= 500").to_json() == {
        "column": "status", "op": ">=", "value": "500", "path": (), "kind": "text"
    }  # fmt: skip
    assert read_filter('features."a.b" = "7"').to_json() == {
        "column": "features", "op": "=", "value": "7", "path": ("a.b",), "kind": "text"
    }  # fmt: skip
    assert read_filter("features.AGEP<4e1").kind == "number"
    assert read_filter("error_code is  not null").op == "is not null"
    with pytest.raises(FilterRefused):
        read_filters(["status=200"] * 11)


def test_filters_hold_for_rows_outside_of_tables_too() -> None:
    row = {"status": 502, "unit": "ada", "features": {"AGEP": 42}, "error_code": None, "input": {"a": [1, {"b": "x"}]}}
    for text in ("status>=500", "features.AGEP=42.0", "error_code is null", "input.a.1.b=x", "unit^ad", "input~X"):
        assert holds(read_filters([text]), row), text
    for text in ("status<500", "features.MAR>0", "error_code=x", "input.a.7=1", "unit~bo"):
        assert not holds(read_filters([text]), row), text
