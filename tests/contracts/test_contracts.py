"""The contracts are code: schemas and examples are committed, and a change that breaks somebody does not pass."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import orjson
import pytest

from shared.asyncapi import document
from shared.errors import Invalid
from shared.events import ALL, BY_TYPE, SERVICES, topics
from shared.events.base import Event
from shared.events.documents import EXAMPLES, SCHEMAS, breaks, example_of, schema_of, text_of
from shared.events.envelope import STRUCTURED, decode, encode, parse

EVENTS = pytest.mark.parametrize("event", ALL, ids=lambda event: event.type())


@EVENTS
def test_the_committed_schema_is_the_class(event: type[Event]) -> None:
    path = SCHEMAS / f"{event.type()}.json"
    assert path.exists(), "run `make schemas` and commit what it writes"
    assert path.read_text() == text_of(event), "run `make schemas` and commit what it writes"


@EVENTS
def test_the_example_fits_its_schema_and_is_read(event: type[Event]) -> None:
    example = example_of(event)
    schema = schema_of(event)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(example["data"], schema, format_checker=jsonschema.FormatChecker())
    envelope = decode(orjson.dumps(example), [("content-type", STRUCTURED.encode())], None)
    parsed = parse(envelope)
    assert type(parsed) is event
    assert parsed.key == example["subject"]


@EVENTS
def test_binary_mode_gives_back_what_was_said(event: type[Event]) -> None:
    envelope = decode(orjson.dumps(example_of(event)), [("content-type", STRUCTURED.encode())], None)
    said = parse(envelope)
    heard = decode(encode(said), envelope.headers(), said.key.encode())
    assert parse(heard) == said
    assert (heard.id, heard.source, heard.type, heard.subject) == (
        envelope.id,
        envelope.source,
        envelope.type,
        envelope.subject,
    )


@EVENTS
def test_an_unknown_field_is_tolerated(event: type[Event]) -> None:
    data = {**example_of(event)["data"], "field_of_next_year": {"deep": [1]}}
    assert event.model_validate(data) == event.model_validate(example_of(event)["data"])


@EVENTS
def test_a_missing_field_is_refused_by_name(event: type[Event]) -> None:
    example = example_of(event)
    required = schema_of(event)["required"]
    for name in required:
        data = {key: value for key, value in example["data"].items() if key != name}
        envelope = decode(orjson.dumps({**example, "data": data}), [("content-type", STRUCTURED.encode())], None)
        with pytest.raises(Invalid, match=name):
            parse(envelope)


def test_no_schema_or_example_is_without_its_class() -> None:
    known = {f"{name}.json" for name in BY_TYPE}
    assert {path.name for path in SCHEMAS.glob("*.json")} == known
    assert {path.name for path in EXAMPLES.glob("*.json")} == known


def test_events_are_frozen_and_documented() -> None:
    for event in ALL:
        assert event.model_config.get("frozen") is True
        assert event.__doc__, event
        assert set(event.producers) <= {*SERVICES, "upstream"}, event
        assert set(event.consumers) <= {*SERVICES, "upstream"}, event
    assert len({spec.name for spec in topics()}) == len(list(topics()))


def changed(schema: dict[str, Any], change: str) -> dict[str, Any]:
    new = copy.deepcopy(schema)
    if change == "new optional field":
        new["properties"]["note"] = {"type": "string", "default": ""}
    elif change == "new required field":
        new["properties"]["note"] = {"type": "string"}
        new["required"].append("note")
    elif change == "field gone":
        del new["properties"]["reason"]
        new["required"].remove("reason")
    elif change == "other type":
        new["properties"]["code"] = {"type": "integer"}
    elif change == "no longer required":
        new["required"].remove("code")
    elif change == "a choice more":
        new["properties"]["code"] = {"type": "string", "enum": ["a", "b"]}
    return new


@pytest.mark.parametrize(
    ("change", "compatible"),
    [
        ("nothing", True),
        ("new optional field", True),
        ("new required field", False),
        ("field gone", False),
        ("other type", False),
        ("no longer required", False),
        ("a choice more", False),
    ],
)
def test_compatibility_is_judged_both_ways(change: str, compatible: bool) -> None:
    schema = schema_of(BY_TYPE["asset.refused.v1"])
    assert (breaks(schema, changed(schema, change)) == []) is compatible


@EVENTS
def test_the_class_stays_compatible_with_what_is_committed(event: type[Event]) -> None:
    committed = json.loads((SCHEMAS / f"{event.type()}.json").read_text())
    assert breaks(committed, schema_of(event)) == [], "give the change a new class and type (contract_version + 1)"


@pytest.mark.parametrize("service", SERVICES)
def test_asyncapi_names_every_event_with_its_schema(service: str) -> None:
    says = [event for event in ALL if service in event.producers]
    hears = [event for event in ALL if service in event.consumers]
    made = document(service, says, hears)
    assert made["asyncapi"] == "3.0.0"
    for event in (*says, *hears):
        assert made["components"]["messages"][event.type()]["payload"]["properties"]
        assert made["channels"][event.topic.name]["messages"][event.type()]
