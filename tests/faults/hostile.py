"""Values that somebody makes up to break a service, and where to put them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

VALUES: tuple[Any, ...] = (
    "\ud800",  # half a character
    "",
    "x" * 100_000,
    "'; DROP TABLE version; --",
    "../../etc/passwd",
    "a\u202eb",
    2**31,
    2**63,
    2**200,
    -1,
    1e308,
    None,
    [],
    {},
    True,
    [[[[[["deep"]]]]]],
    {"\ud800": "half a character"},
    {"x" * 300: 2**60},
    "9999-12-31T23:59:59-14:00",  # no moment of UTC
    "0001-01-01T00:00:00+14:00",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every value inside a JSON document, containers too."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*path, name)
        yield from places(one, (*path, name))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with one value replaced."""
    copy = deepcopy(document)
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return copy


def changes(document: Any) -> list[Any]:
    """The document with each of its values replaced by each of ours."""
    return [changed(document, path, value) for path in places(document) for value in VALUES]
