"""Reads a client's JSON field by field: each refusal names the field, and a field that nobody read is refused too."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn

import orjson

from services.router.errors import FieldRefused
from services.router.gateway.conversation import Image, JsonObject
from shared.errors import Malformed

DATA_URL = "data:"


class Fields:
    """An object of the request and the path to it. `None` counts as not sent, as the official clients have it."""

    __slots__ = ("_left", "path")

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise FieldRefused(path or "body", "must be an object")
        self.path = path
        self._left: JsonObject = {name: found for name, found in value.items() if found is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, reason: str) -> NoReturn:
        raise FieldRefused(self.at(name), reason)

    def take(self, name: str) -> Any:
        """The value, of whatever kind; None if there is none."""
        return self._left.pop(name, None)

    def require(self, name: str) -> Any:
        if name not in self._left:
            self.refuse(name, "is missing")
        return self._left.pop(name)

    def text(self, name: str) -> str:
        return self._text(name, self.require(name))

    def optional_text(self, name: str) -> str | None:
        value = self.take(name)
        return None if value is None else self._text(name, value)

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            self.refuse(name, "must be a string")
        return value

    def integer(self, name: str, least: int | None = None) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, "must be a whole number")
        if least is not None and value < least:
            self.refuse(name, f"must be at least {least}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(name, "must be a number")
        if not low <= value <= high:
            self.refuse(name, f"must lie between {low:g} and {high:g}")
        return value

    def boolean(self, name: str) -> bool | None:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "must be true or false")
        return value

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str) or value not in choices:
            self.refuse(name, f"must be one of {', '.join(sorted(choices))}")
        return value

    def mapping(self, name: str) -> JsonObject | None:
        """An object that is passed on whole, such as a JSON Schema."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            self.refuse(name, "must be an object")
        return value

    def child(self, name: str) -> Fields | None:
        value = self.take(name)
        return None if value is None else Fields(value, self.at(name))

    def children(self, name: str) -> Iterator[Fields]:
        """The objects of a list; none if it is not there."""
        value = self.take(name)
        return iter(()) if value is None else each(value, self.at(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.take(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            self.refuse(name, "must be a list of strings")
        return tuple(value)

    def drop(self, names: Mapping[str, Collection[object]]) -> None:
        """Let fields go whose value is one that asks for nothing: `{"n": (1,)}`."""
        for name, values in names.items():
            if name in self._left and any(self._left[name] is value or self._left[name] == value for value in values):
                del self._left[name]

    def forget(self, *names: str) -> None:
        for name in names:
            self._left.pop(name, None)

    def end(self) -> None:
        """Raises FieldRefused for a field that was not read: nothing is dropped without a word."""
        for name in self._left:
            self.refuse(name, "cannot be translated for the provider behind this version; leave it out")


def each(value: object, path: str) -> Iterator[Fields]:
    """The objects of a list, each with its path. Raises FieldRefused."""
    if not isinstance(value, list):
        raise FieldRefused(path, "must be a list")
    return (Fields(item, f"{path}[{position}]") for position, item in enumerate(value))


def parse(body: bytes) -> JsonObject:
    """The request's JSON object. Raises Malformed, FieldRefused."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise FieldRefused("body", "must be a JSON object")
    return value


def image_of(url: str, detail: str, where: str) -> Image:
    """An image from a URL, or from a `data:` URL with base64 in it."""
    if not url.startswith(DATA_URL):
        return Image(url=url, detail=detail, where=where)
    head, comma, data = url[len(DATA_URL) :].partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or encoding != "base64" or not media_type:
        raise FieldRefused(where, "must be an http(s) URL or data:<media type>;base64,<data>")
    return Image(media_type, data, detail=detail, where=where)
