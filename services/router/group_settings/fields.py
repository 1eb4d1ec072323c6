"""Which field of a row a rule means: `unit`, `features.AGEP`, `input.messages[*].content`, `input.meta["e.mail"]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

JSON_COLUMNS = frozenset({"input", "output", "features", "shap", "tags"})
TEXT_COLUMNS = frozenset({"unit", "requester", "client_request_id", "trace_id", "prediction"})
NUMBER_COLUMNS = frozenset({"score"})
COLUMNS = JSON_COLUMNS | TEXT_COLUMNS | NUMBER_COLUMNS

EVERY = None
"""The segment `*` or `[*]`: every value of a list or an object."""

Segment = str | int | None

_COLUMN = re.compile(r"[a-z_]+")
_SEGMENT = re.compile(r'\.(\*|[^.\[\]"*\s]+)|\[(\*|\d{1,6})\]|\["([^"]+)"\]')


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or what stands below a JSON column; an empty path is all of it."""

    column: str
    path: tuple[Segment, ...] = ()


def read_field(text: str) -> Field:
    """Raises ValueError with a sentence that says what a field is."""
    column = _COLUMN.match(text)
    if column is None or column[0] not in COLUMNS:
        raise ValueError(f"{text[:80]!r} names no column; there are {', '.join(sorted(COLUMNS))}")
    path: list[Segment] = []
    place = column.end()
    while place < len(text):
        found = _SEGMENT.match(text, place)
        if found is None:
            raise ValueError(f"{text[:80]!r} cannot be read from {text[place : place + 20]!r} on; write a.b or a[*]")
        name, index, quoted = found.groups()
        if name == "*" or index == "*":
            path.append(EVERY)
        else:
            path.append(int(index) if index is not None else name or quoted)
        place = found.end()
    if path and column[0] not in JSON_COLUMNS:
        raise ValueError(f"{column[0]} is no JSON column, so nothing stands below it")
    return Field(column[0], tuple(path))
