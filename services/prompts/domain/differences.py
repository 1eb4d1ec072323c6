"""How two versions differ: text, variables, configuration, and what they include. Pure."""

from __future__ import annotations

import difflib
from typing import Any


def readable(content: dict[str, Any]) -> list[str]:
    """A prompt as lines, for a person's diff."""
    lines = [] if content.get("text") is None else str(content["text"]).splitlines()
    for message in content.get("messages", ()):
        if message.get("type") == "placeholder":
            lines.append(f"[placeholder {message['name']}]")
        else:
            lines += [f"[{message['role']}]", *str(message["content"]).splitlines()]
    for example in content.get("examples", ()):
        lines += ["[example]", *str(example["input"]).splitlines(), "[answer]", *str(example["output"]).splitlines()]
    lines += [f"variable {name}: {_variable(one)}" for name, one in sorted(content.get("variables", {}).items())]
    lines += [f"config {name}: {value}" for name, value in sorted(content.get("config", {}).items())]
    return lines + [f"includes {line}" for line in _included(content.get("closure", ()), 0)]


def _variable(one: dict[str, Any]) -> str:
    more = [] if one.get("required", True) else [f"optional, {one.get('default')!r} without it"]
    more += [f"schema {one['json_schema']}"] if one.get("json_schema") else []
    return ", ".join([str(one["type"]), *more])


def _included(entries: Any, depth: int) -> list[str]:
    lines = []
    for entry in entries:
        lines.append(f"{'  ' * depth}{entry['title']}@{entry['version']} {entry['digest'][7:19]}")
        lines += _included(entry.get("closure", ()), depth + 1)
    return lines


def difference(before: tuple[str, dict[str, Any]], after: tuple[str, dict[str, Any]]) -> str:
    """The unified diff between two named contents; empty when they read the same."""
    lines = difflib.unified_diff(readable(before[1]), readable(after[1]), before[0], after[0], lineterm="")
    return "\n".join(lines)


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What became of variables and of the closure, by name."""
    old, new = before.get("variables", {}), after.get("variables", {})
    return {
        "variables": {
            "added": sorted(set(new) - set(old)),
            "removed": sorted(set(old) - set(new)),
            "changed": sorted(name for name in set(old) & set(new) if old[name] != new[name]),
        },
        "closure": _closure_changes(_flat(before.get("closure", ())), _flat(after.get("closure", ()))),
        "config": before.get("config", {}) != after.get("config", {}),
    }


def _flat(entries: Any) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for entry in entries:
        found.setdefault(entry["title"], set()).add(entry["version"])
        for title, versions in _flat(entry.get("closure", ())).items():
            found.setdefault(title, set()).update(versions)
    return found


def _closure_changes(old: dict[str, set[int]], new: dict[str, set[int]]) -> list[dict[str, Any]]:
    return [
        {"title": title, "before": sorted(old.get(title, ())), "after": sorted(new.get(title, ()))}
        for title in sorted({*old, *new})
        if old.get(title) != new.get(title)
    ]


def resolved_of(content: dict[str, Any]) -> dict[str, Any]:
    """The content as it is used: every include put in."""
    whole = dict(content)
    if "resolved_text" in content:
        whole["text"] = content["resolved_text"]
    if "resolved_messages" in content:
        whole["messages"] = content["resolved_messages"]
    return whole
