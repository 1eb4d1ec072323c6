"""What search does not take."""

from __future__ import annotations

from shared.errors import Invalid

WIDTH = 60


class FilterRefused(Invalid):
    """The filter cannot be read."""

    code = "filter-refused"


class TooBroad(Invalid):
    """The filter asks for more than is looked through for one answer; narrow it."""

    code = "filter-too-broad"


def at(text: str, position: int, message: str) -> FilterRefused:
    """The error at a place of the filter, with a caret below it."""
    position = max(0, min(position, len(text)))
    start = max(0, position - WIDTH)
    shown = text[start : position + WIDTH].replace("\n", " ").replace("\t", " ")
    before, after = "…" if start else "", "…" if position + WIDTH < len(text) else ""
    caret = " " * (len(before) + position - start) + "^"
    return FilterRefused(
        f"the filter is wrong at column {position + 1}: {message}\n{before}{shown}{after}\n{caret}", column=position + 1
    )
