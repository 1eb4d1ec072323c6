"""A foreign document: bounded, addressed by JSON pointers (RFC 6901), and known again by its structure. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shared import strict_json
from shared.errors import Invalid, TooLarge
from shared.ids import digest_of

MOST_BYTES = 4 * 1024 * 1024
MOST_NODES = 100_000
"""Keys and items together. A curve of 10,000 points has 20,000; a million keys are an attack, not a model."""

Pointer = tuple[str, ...]


def parse(data: bytes) -> Any:
    """The document. Raises TooLarge (413), Malformed (400) or Invalid (422)."""
    if len(data) > MOST_BYTES:
        raise TooLarge(f"the document has {len(data)} bytes; {MOST_BYTES} is the most")
    document = strict_json.loads(data)
    if not isinstance(document, dict | list) or not document:
        raise Invalid("the document says nothing about a model; send a JSON object")
    for count, _ in enumerate(nodes(document)):
        if count >= MOST_NODES:
            raise Invalid(f"the document has more than {MOST_NODES} keys and items; leave the raw data out")
    return document


def nodes(value: Any, at: Pointer = ()) -> Iterator[tuple[Pointer, Any]]:
    """Every value with its pointer, the document itself first."""
    yield at, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from nodes(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from nodes(inner, (*at, str(index)))


def text(pointer: Pointer) -> str:
    """The pointer as it is written: `/a~1b/0`."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in pointer)


def read(written: str) -> Pointer:
    """The pointer of a text. Raises Invalid."""
    if written and not written.startswith("/"):
        raise Invalid(f"{written[:100]!r} is no JSON pointer; it begins with /")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in written.split("/")[1:])


def at(document: Any, pointer: Pointer) -> Any:
    """The value at a pointer. Raises Invalid where there is none."""
    value = document
    for part in pointer:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and len(part) < 10 and int(part) < len(value):
            value = value[int(part)]
        else:
            raise Invalid(f"the document has nothing at {text(pointer)[:200]!r}")
    return value


def unclaimed(document: Any, claimed: set[Pointer]) -> dict[str, Any]:
    """What nothing was made of: the largest parts without anything claimed in them, by pointer."""
    touched = {pointer[:length] for pointer in claimed for length in range(len(pointer) + 1)}
    found: dict[str, Any] = {}

    def look(value: Any, here: Pointer) -> None:
        if here in claimed:
            return
        if here not in touched:
            found[text(here)] = value
            return
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            look(inner, (*here, str(key)))

    look(document, ())
    return found


def shape(document: Any) -> str:
    """A digest of the structure: which pointers there are and of what type, items of a list as one."""
    paths = set()

    def look(value: Any, here: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                look(inner, f"{here}/{key}")
        elif isinstance(value, list):
            for inner in value:
                look(inner, f"{here}/*")
        kind = {dict: "object", list: "list", str: "text", bool: "bool", type(None): "null"}
        paths.add(f"{here} {kind.get(type(value), 'number')}")

    look(document, "")
    return digest_of(sorted(paths))
