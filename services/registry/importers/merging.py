"""What a source says against what stands here: who changed what since they last agreed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.ids import sha256

Said = Mapping[str, str]
"""Field (description, tag:<key>, stage, alias:<name>) to its value; one that is absent has none."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that the source says otherwise than it stands here. `why_not` is set where it stays as it is here."""

    field: str
    before: str | None
    after: str | None
    why_not: str | None = None


def mark(value: str) -> str:
    """What is kept of a value to tell whether it changed."""
    return sha256(value.encode("utf-8", "surrogatepass"))[7:39]


def differences(last: Said, now: Said, here: Said) -> list[Difference]:
    """What to change here. `last` holds marks of what the source said when it was read last, empty the first time.

    What only we changed stays; what only the source changed is changed here; what both changed is a conflict, and
    stays as it is here until somebody decides.
    """
    found = []
    for field in sorted({*last, *now}):
        theirs, ours = now.get(field), here.get(field)
        marked = mark(theirs) if theirs is not None else None
        if marked == last.get(field) or theirs == ours:
            continue
        if (mark(ours) if ours is not None else None) == last.get(field):
            found.append(Difference(field, ours, theirs))
        else:
            found.append(Difference(field, ours, theirs, "it was changed here, too"))
    return found


def marks(last: Said, now: Said, kept_back: set[str]) -> dict[str, str]:
    """What to remember of what was said; of fields that were kept back, what was remembered before."""
    after = {field: mark(value) for field, value in now.items() if field not in kept_back}
    return after | {field: last[field] for field in kept_back if field in last}
