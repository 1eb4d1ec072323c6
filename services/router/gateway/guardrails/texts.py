"""The texts of a request or an answer, wherever they stand in its JSON, and putting other texts in their places.

Every string is a text unless it stands where only names do, so that a field which is new tomorrow is looked at too.
Strings that are JSON themselves (a tool call's arguments) are looked into. Numbers and fields' names are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

NAMES = frozenset(
    (
        "role",
        "type",
        "id",
        "model",
        "object",
        "datatype",
        "media_type",
        "mime_type",
        "finish_reason",
        "stop_reason",
        "status",
        "tool_call_id",
        "tool_use_id",
        "call_id",
        "item_id",
        "response_id",
        "previous_response_id",
        "signature",
        "encrypted_content",
        "system_fingerprint",
        "service_tier",
        "detail",
        "encoding_format",
        "tool_choice",
        "response_format",
        "reasoning_effort",
        "cache_control",
        "event",
        "model_name",
        "model_version",
        "safety_identifier",
        "user",
        "metadata",
        "obfuscation",
    )
)
"""Fields whose value, if a string, is one of few or an id. Within them nothing is looked at."""
EMBEDDED = frozenset(("arguments", "partial_json"))
BINARY = ("data:", "http://", "https://")
MAX_DEPTH = 64

Place = tuple[Any, Any, tuple[Any, ...]]
"""A container, the key of the text in it, and the keys on the way there."""
APPLICATION = frozenset(("system", "instructions", "tools", "developer"))
"""Fields and roles of what the application says itself: nobody injects a prompt there."""


class Texts:
    """`all` are the texts, in their order; `write` puts others there; `dump` gives the JSON again.

    `foreign` are numbers of those that the application did not write itself.
    """

    def __init__(self, value: Any, *, embedded: bool = True) -> None:
        """Without `embedded`, JSON within strings is a text like any other: of a stream it may be a piece."""
        self.value = value
        self._looks_within = embedded
        self.places: list[Place] = []
        self._embedded: list[tuple[Any, Any, Any]] = []
        self.all: list[str] = []
        for container, key, path in self._walk(value, (), 0):
            self.places.append((container, key, path))
            self.all.append(container[key])
        self.foreign = [number for number, (_, _, path) in enumerate(self.places) if not self._is_own(path)]

    def _is_own(self, path: tuple[Any, ...]) -> bool:
        if path and path[0] in APPLICATION:
            return True
        if len(path) < 2 or path[0] not in ("messages", "input"):
            return False
        turn = self.value[path[0]]
        turn = turn[path[1]] if isinstance(turn, list) and isinstance(path[1], int) else None
        return isinstance(turn, dict) and turn.get("role") in APPLICATION

    def write(self, number: int, text: str) -> None:
        container, key, _ = self.places[number]
        container[key] = text
        self.all[number] = text

    def dump(self) -> bytes:
        for container, key, parsed in reversed(self._embedded):
            container[key] = orjson.dumps(parsed).decode()
        return orjson.dumps(self.value)

    def _walk(self, node: Any, path: tuple[Any, ...], depth: int) -> Iterator[Place]:
        if depth > MAX_DEPTH:
            return
        if isinstance(node, dict):
            for key, value in node.items():
                if key in NAMES or (key == "name" and "data" not in node and "shape" in node):
                    continue
                yield from self._visit(node, key, value, (*path, key), depth)
        elif isinstance(node, list):
            for number, value in enumerate(node):
                yield from self._visit(node, number, value, (*path, number), depth)

    def _visit(self, node: Any, key: Any, value: Any, path: tuple[Any, ...], depth: int) -> Iterator[Place]:
        if isinstance(value, str):
            if key in ("name", "url", "file_data", "image_url") and (key == "name" or value.startswith(BINARY)):
                return
            if key == "data" and isinstance(node, dict) and ("media_type" in node or "format" in node):
                return
            if self._looks_within and key in EMBEDDED and value[:1] in ("{", "["):
                try:
                    parsed = orjson.loads(value)
                except orjson.JSONDecodeError:
                    parsed = None
                if isinstance(parsed, dict | list):
                    self._embedded.append((node, key, parsed))
                    yield from self._walk(parsed, path, depth + 1)
                    return
            if value:
                yield node, key, path
        elif isinstance(value, dict | list):
            yield from self._walk(value, path, depth + 1)


def answer_text(value: Any) -> str | None:
    """What a schema or a judge is asked about: a conversation's text, or the tensors by name as JSON.

    None of an answer that says nothing and only calls tools.
    """
    if isinstance(value, dict) and isinstance(value.get("outputs"), list):
        tensors = (one for one in value["outputs"] if isinstance(one, dict))
        return orjson.dumps({str(one.get("name")): one.get("data") for one in tensors}).decode()
    found: list[str] = []
    _spoken(value, found)
    if found:
        return "".join(found)
    return None if _calls(value) else "\n".join(Texts(value).all)


def _calls(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    messages = [one.get("message") for one in _dicts(value.get("choices"))]
    parts = [*_dicts(value.get("content")), *_dicts(value.get("output"))]
    return any(isinstance(one, dict) and one.get("tool_calls") for one in messages) or any(
        one.get("type") in ("tool_use", "function_call") for one in parts
    )


def _spoken(value: Any, found: list[str]) -> None:
    """The texts of OpenAI's choices, Anthropic's content and OpenAI's output items; no thoughts and no tool calls."""
    if not isinstance(value, dict):
        return
    for choice in _dicts(value.get("choices")):
        message = choice.get("message")
        if isinstance(message, dict):
            _said(message.get("content"), found)
    if "choices" not in value:
        _said(value.get("content"), found)
    for item in _dicts(value.get("output")):
        if item.get("type") == "message":
            _said(item.get("content"), found)


def _said(content: Any, found: list[str]) -> None:
    if isinstance(content, str):
        found.append(content)
    for part in _dicts(content):
        if part.get("type") in ("text", "output_text") and isinstance(part.get("text"), str):
            found.append(part["text"])


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
