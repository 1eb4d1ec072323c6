"""What a guard found in some texts, and where. Pure; this is also what a guard's process answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters of one of the texts, from `start` to before `end`, and what they are."""

    text: int
    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Finding:
    """`reason` says what was found and never quotes it: it goes into events, rows and errors."""

    tripped: bool
    reason: str = ""
    spans: tuple[Span, ...] = ()
    score: float | None = None


NOTHING = Finding(False)


def masked(text: str, spans: Iterable[Span]) -> str:
    """The text with `<LABEL>` in the place of each span; of spans that overlap, one mask covers all."""
    made: list[str] = []
    place = 0
    for start, end, label in merged(spans):
        made += (text[place:start], f"<{label}>")
        place = end
    return "".join((*made, text[place:]))


def merged(spans: Iterable[Span]) -> list[tuple[int, int, str]]:
    """Spans of one text in their order, those that overlap made one under the first one's label."""
    found: list[tuple[int, int, str]] = []
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        if found and span.start < found[-1][1]:
            start, end, label = found[-1]
            found[-1] = (start, max(end, span.end), label)
        elif span.end > span.start:
            found.append((span.start, span.end, span.label))
    return found


def labels(spans: Iterable[Span]) -> str:
    """`2 EMAIL_ADDRESS, 1 US_SSN`."""
    counts: dict[str, int] = {}
    for span in spans:
        counts[span.label] = counts.get(span.label, 0) + 1
    return ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
