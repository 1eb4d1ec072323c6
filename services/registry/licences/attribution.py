"""The file that goes along with a model: who made what it stands on, under which licence, and what that asks."""

from __future__ import annotations

from collections.abc import Iterator

from services.registry.licences import expressions
from services.registry.licences.closure import Closure, Part, Path, spoken
from services.registry.licences.obligations import Judgement


def text(closure: Closure, judgement: Judgement) -> str:
    """Plain text; the same for the same version as long as no licence's row changes."""
    return "\n".join(_lines(closure, judgement)) + "\n"


def _lines(closure: Closure, judgement: Judgement) -> Iterator[str]:
    root = closure.root
    yield f"Attributions of {root.node}"
    yield f"{root.digest}, registered {root.registered_at:%Y-%m-%d} by {root.author}"
    yield ""
    declared = judgement.declared
    yield f"Licence: {declared.expression or declared.written if declared else 'none declared'}"
    yield f"In effect: {judgement.effective or 'not known'}"
    display = [one for one in judgement.obligations if one.kind == "display"]
    for obligation in dict.fromkeys(one.text for one in display):
        yield f"Note: {obligation}"
    yield from _part(closure, judgement, root, ())
    for reached in closure.reached:
        yield from _part(closure, judgement, reached.part, reached.path)
    if judgement.gaps:
        yield ""
        yield "Not known"
        for gap in judgement.gaps:
            yield f"  {gap.node}: {gap.reason}"


def _part(closure: Closure, judgement: Judgement, part: Part, path: Path) -> Iterator[str]:
    reading = expressions.read(part.licence) if part.licence else None
    yield ""
    yield f"{part.kind} {part.node}"
    yield f"  {part.digest}"
    if path:
        yield f"  Comes in by: {spoken(closure.root.node, path)}"
    if source := (part.content.get("manifest") or {}).get("source"):
        yield f"  Source: {source}"
    yield f"  Licence: {(reading.expression or reading.written + ' (unknown)') if reading else 'none declared'}"
    for term in {term.key: term for one in reading.alternatives for term in one}.values() if reading else ():
        yield f"  {term.name}: {term.source}"
    for obligation in judgement.obligations:
        if obligation.node == part.node and obligation.kind in ("notice", "attribution", "naming", "share-alike"):
            yield f"  {obligation.text}"
