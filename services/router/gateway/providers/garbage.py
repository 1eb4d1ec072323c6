"""Reads what providers send without believing it: each getter checks, and names what is wrong."""

from __future__ import annotations

from typing import Any

import orjson

from services.router.errors import UpstreamGarbageError
from services.router.gateway.conversation import JsonObject

SHOWN_CHARACTERS = 500


def text_of(value: JsonObject, name: str) -> str:
    """A text; empty if it is not there."""
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise UpstreamGarbageError(f"The provider's `{name}` is not text.")
    return found


def listed(value: JsonObject, name: str) -> list[JsonObject]:
    """A list of objects, which must be there."""
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UpstreamGarbageError(f"The provider's `{name}` is not a list of objects.")
    return found


def held(value: JsonObject, name: str) -> JsonObject:
    """An object, which must be there."""
    found = value.get(name)
    if not isinstance(found, dict):
        raise UpstreamGarbageError(f"The provider's `{name}` is not an object.")
    return found


def optional(value: JsonObject, name: str) -> JsonObject:
    """An object; empty if it is not there."""
    return {} if value.get(name) is None else held(value, name)


def count(value: JsonObject, name: str) -> int:
    """A number of something; 0 if it is not there."""
    found = value.get(name)
    if found is None:
        return 0
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise UpstreamGarbageError(f"The provider's `{name}` is not a count.")
    return found


def arguments_of(value: Any) -> str:
    """Arguments that came as an object, as the JSON text that they are in the neutral form."""
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise UpstreamGarbageError("The arguments of the provider's tool call are not an object.")
    return orjson.dumps(value).decode()


def sentence(value: object) -> str:
    """The message of an error body, wherever providers put it; cut to a length that fits a log."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        for name in ("error", "message", "Message", "OriginalMessage", "detail"):
            if value.get(name):
                return sentence(value[name])
        return orjson.dumps(value).decode()[:SHOWN_CHARACTERS]
    text = " ".join(str(value).split())[:SHOWN_CHARACTERS]
    return text or "it did not say why"
