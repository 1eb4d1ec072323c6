"""Where the words that were asked for stand in a text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

AROUND = 70
_WORD = re.compile(r"\w+")


def matched(text: str, stems: Iterable[str]) -> list[tuple[int, int]]:
    """Places of words that begin like a stem: English stems are beginnings, but for a last `i` that was a `y`."""
    begins = tuple(stem[:-1] if len(stem) > 3 and stem.endswith("i") else stem for stem in stems)
    if not begins:
        return []
    return [found.span() for found in _WORD.finditer(text) if found[0].lower().startswith(begins)]


def snippet(text: str, stems: Iterable[str]) -> str | None:
    """The text around the first of the words, each between `**`; None where none stands in it."""
    places = matched(text, stems)
    if not places:
        return None
    start = max(0, places[0][0] - AROUND)
    end = min(len(text), places[0][0] + 2 * AROUND)
    if start:
        start = max(text.find(" ", start, places[0][0]) + 1, start)
    parts, at = [], start
    for begin, stop in places:
        if stop > end:
            break
        parts += [text[at:begin], "**", text[begin:stop], "**"]
        at = stop
    parts.append(text[at:end])
    return ("…" if start else "") + "".join(parts).strip() + ("…" if end < len(text) else "")
