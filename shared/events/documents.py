"""`python -m shared.events.documents`: writes the JSON Schema of every event and checks its example against it.

A change that would break a reader or a writer of the same version is refused: it needs a new class and type.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from shared.events import ALL
from shared.events.base import Event
from shared.events.envelope import DEFAULT_WORKSPACE

HERE = Path(str(files("shared.events")))
SCHEMAS = HERE / "schemas"
EXAMPLES = HERE / "examples"


def schema_of(event: type[Event]) -> dict[str, Any]:
    """The closed JSON Schema of an event's data: what a publisher is held to. Readers tolerate unknown fields."""
    schema = _closed(event.model_json_schema(by_alias=True))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"/schemas/{event.type()}.json",
        "x-topic": event.topic.name,
        "x-producers": list(event.producers),
        "x-consumers": list(event.consumers),
        "x-signed": event.external,
        **schema,
    }


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _closed(value) for key, value in node.items()}
    if node.get("type") == "object" and "properties" in node:
        node.setdefault("additionalProperties", False)
    return node


def breaks(old: dict[str, Any], new: dict[str, Any], where: str = "") -> list[str]:
    """What a change would break, both ways; empty when old and new readers and writers understand each other."""
    return _breaks(_resolved(old, old), _resolved(new, new), where)


def _breaks(old: dict[str, Any], new: dict[str, Any], where: str) -> list[str]:
    found: list[str] = []
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        found.append(f"{where}{name} became required: events written before lack it")
    for name in sorted(set(old.get("required", [])) - set(new.get("required", []))):
        found.append(f"{where}{name} is no longer required: readers of before miss it")
    for name in sorted(set(old_fields) - set(new_fields)):
        found.append(f"{where}{name} is gone")
    for name in sorted(set(old_fields) & set(new_fields)):
        found += _breaks_of_field(old_fields[name], new_fields[name], f"{where}{name}")
    return found


def _breaks_of_field(old: dict[str, Any], new: dict[str, Any], where: str) -> list[str]:
    if _shape(old) != _shape(new):
        return [f"{where} changed from {_shape(old)} to {_shape(new)}"]
    if "properties" in old or "properties" in new:
        return _breaks(old, new, f"{where}.")
    for inner in ("items", "additionalProperties"):
        if isinstance(old.get(inner), dict) and isinstance(new.get(inner), dict):
            return _breaks_of_field(old[inner], new[inner], f"{where}[]")
    return []


def _shape(node: dict[str, Any]) -> Any:
    """What must stay the same of a field: its types, its choices, its pattern."""
    if "anyOf" in node:
        return sorted(json.dumps(_shape(part), sort_keys=True) for part in node["anyOf"])
    return {key: node[key] for key in ("type", "enum", "const", "pattern", "format") if key in node}


def _resolved(node: Any, root: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_resolved(item, root) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target: Any = root
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return {key: _resolved(value, root) for key, value in node.items() if key != "$defs"}


def text_of(event: type[Event]) -> str:
    return json.dumps(schema_of(event), indent=1) + "\n"


def example_of(event: type[Event]) -> dict[str, Any]:
    """The committed example: a structured CloudEvent, as it could be published as it is."""
    document: dict[str, Any] = json.loads((EXAMPLES / f"{event.type()}.json").read_text())
    return document


def main() -> int:
    """Write what is missing or may change; refuse what would break somebody."""
    SCHEMAS.mkdir(exist_ok=True)
    broken = False
    for event in ALL:
        path = SCHEMAS / f"{event.type()}.json"
        if path.exists():
            for reason in breaks(json.loads(path.read_text()), schema_of(event)):
                print(
                    f"{event.type()}: {reason}; make a new class with contract_version {event.contract_version + 1}",
                    file=sys.stderr,
                )
                broken = True
    if broken:
        return 1
    for event in ALL:
        (SCHEMAS / f"{event.type()}.json").write_text(text_of(event))
    known = {f"{event.type()}.json" for event in ALL}
    gone = sorted({path.name for path in SCHEMAS.iterdir()} - known)
    if gone:
        print(f"schemas without a class (an event version is never removed): {', '.join(gone)}", file=sys.stderr)
        return 1
    print(f"{len(known)} schemas; workspace {DEFAULT_WORKSPACE!r} unless an event says otherwise")
    return 0


if __name__ == "__main__":
    sys.exit(main())
