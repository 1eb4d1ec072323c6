"""A group's guards, compiled once a snapshot, and one look at a request or an answer by all of them in their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from services.router.gateway.guardrails.checks import CHECKS
from services.router.gateway.guardrails.errors import GuardFailed, GuardrailTripped
from services.router.gateway.guardrails.findings import Finding, Span, masked
from services.router.gateway.guardrails.texts import Texts, answer_text
from services.router.gateway.guardrails.workers import GuardError, Workers
from services.router.group_settings.guardrails import SIDES, Guardrails, strictest
from shared.errors import MintmarkError
from shared.events.guardrails import Guard, JudgeGuard

Side = Literal["input", "output"]
Judge = Callable[[str, JudgeGuard, str], Awaitable[Finding]]
"""(workspace, guard, text): asks the guard's group. Raises GuardError."""

INLINE = frozenset(("toxicity", "prompt_injection"))
INLINE_CHARACTERS = 500
"""What the lexicons get through in about half a millisecond; longer texts go to the guards' process."""
FOREIGN = frozenset(("toxicity", "prompt_injection"))
"""Kinds that look at what the application's users and tools say, and not at its own instructions."""
WHOLE = frozenset(("json_schema", "judge"))
"""Kinds that judge an answer as a whole and never a window of it."""
DONE = {"block": "blocked", "mask": "masked", "flag": "flagged"}


@dataclass(frozen=True, slots=True)
class Compiled:
    guard: Guard
    asked: dict[str, Any]
    """Its parameters as its process takes them."""

    @property
    def is_whole(self) -> bool:
        return self.guard.kind in WHOLE

    @staticmethod
    def of(guard: Guard) -> Compiled:
        asked = guard.model_dump(mode="json")
        asked["label"] = guard.name.upper()
        if guard.kind == "json_schema":
            asked["schema"] = orjson.dumps(guard.json_schema).decode()
        return Compiled(guard, asked)


@dataclass(frozen=True, slots=True)
class Guards:
    """What a route has. A group without guards has none of these, and pays nothing."""

    input: tuple[Compiled, ...]
    output: tuple[Compiled, ...]
    window_characters: int
    overlap_characters: int

    @staticmethod
    def of(section: Guardrails, brought: Iterable[Guard] = ()) -> Guards | None:
        """`brought` are the guards of the version, which the section may have tightened. None without any guard."""
        compiled = [Compiled.of(guard) for guard in strictest(brought, section.guards)]
        if not compiled:
            return None
        sides = [tuple(one for one in compiled if side in SIDES[one.guard.on]) for side in ("input", "output")]
        return Guards(sides[0], sides[1], section.window_characters, section.overlap_characters)

    @property
    def every(self) -> tuple[Compiled, ...]:
        return (*self.input, *(one for one in self.output if one not in self.input))


@dataclass(slots=True)
class Outcome:
    """What all guards said. `notes` are the row's: `{"name", "on", "outcome", "ms"}`, a reason where one tripped."""

    notes: list[dict[str, Any]] = field(default_factory=list)
    refusal: MintmarkError | None = None
    changed: bool = False


class Looker:
    """Asks guards: the quick ones here, the others in their process, judges at their group."""

    def __init__(self, judge: Judge, seen: Callable[[str, str, str, float], None]) -> None:
        """`seen` hears group, guard, outcome and seconds, for the metrics."""
        self.workers = Workers()
        self._judge = judge
        self._seen = seen

    async def look(
        self, route: tuple[str, str], guards: Sequence[Compiled], side: Side, texts: Texts, *, judges: bool = True
    ) -> Outcome:
        """All guards on a whole request or answer; masks are written into `texts`. `route` is workspace and group."""
        outcome = Outcome()
        for one in guards:
            if one.guard.kind == "judge" and not judges:
                continue
            numbers = texts.foreign if side == "input" and one.guard.kind in FOREIGN else range(len(texts.all))
            looked = [texts.all[number] for number in numbers]
            if one.is_whole:
                said = answer_text(texts.value) if side == "output" else "\n".join(texts.all)
                if said is None:
                    continue
                looked = [said]
            finding = await self.ask(route, one, side, looked, outcome)
            if finding is None or not finding.tripped:
                if outcome.refusal is not None:
                    break
                continue
            if one.guard.action == "block":
                break
            if one.guard.action == "mask":
                outcome.changed = True
                for number, spans in by_text(finding.spans).items():
                    place = numbers[number]
                    texts.write(place, masked(texts.all[place], spans))
        return outcome

    async def ask(
        self, route: tuple[str, str], one: Compiled, side: Side, texts: list[str], outcome: Outcome
    ) -> Finding | None:
        """One guard, noted in `outcome` with its time and what came of it; None where it failed."""
        guard, began = one.guard, time.perf_counter()
        note: dict[str, Any] = {"name": guard.name, "on": side}
        finding: Finding | None = None
        try:
            found = finding = await self._found(route[0], one, texts)
        except (GuardError, TimeoutError) as error:
            note["outcome"] = f"failed-{guard.when_it_fails}"
            note["reason"] = "no answer in time" if isinstance(error, TimeoutError) else str(error)[:200]
            if guard.when_it_fails == "closed":
                outcome.refusal = GuardFailed(guard.name)
        else:
            note["outcome"] = DONE[guard.action] if found.tripped else "passed"
            if found.tripped:
                note["reason"] = found.reason
                if guard.action == "block":
                    outcome.refusal = GuardrailTripped(guard.name, side)
            if found.score is not None:
                note["score"] = found.score
        seconds = time.perf_counter() - began
        note["ms"] = round(seconds * 1000, 3)
        outcome.notes.append(note)
        self._seen(route[1], guard.name, note["outcome"], seconds)
        return finding

    async def _found(self, workspace: str, one: Compiled, texts: list[str]) -> Finding:
        guard, timeout_s = one.guard, one.guard.timeout_ms / 1000
        if not any(texts) and not one.is_whole:
            return Finding(False)
        if isinstance(guard, JudgeGuard):
            async with asyncio.timeout(timeout_s):
                return await self._judge(workspace, guard, texts[0])
        if guard.kind in INLINE and sum(map(len, texts)) <= INLINE_CHARACTERS:
            return CHECKS[guard.kind](texts, one.asked)
        return await self.workers.of(guard.kind).ask(guard.kind, one.asked, texts, timeout_s)


def by_text(spans: Iterable[Span]) -> dict[int, list[Span]]:
    found: dict[int, list[Span]] = {}
    for span in spans:
        found.setdefault(span.text, []).append(span)
    return found
