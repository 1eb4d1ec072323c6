"""The guards of one streamed answer: its events go out behind a window that was looked at, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from services.router.gateway.guardrails.errors import GuardFailed
from services.router.gateway.guardrails.findings import Finding, Span
from services.router.gateway.guardrails.guards import Guards, Looker, Outcome
from services.router.gateway.guardrails.windows import Channel, Window
from shared.errors import MintmarkError

log = logging.getLogger(__name__)

PAUSE_BYTES = 1 << 20
"""Held beyond this, the upstream is not read on until a look is through."""
MOST_BYTES = 16 << 20
"""Of an answer that is held to its end."""
WORST = ("passed", "failed-open", "flagged", "masked", "blocked", "failed-closed")


class GuardedStream:
    """`send` gets what may leave, `stop` the error that ends the stream, `pause` whether to read on.

    Looks follow each other; what comes meanwhile is held for the next one.
    """

    def __init__(
        self,
        looker: Looker,
        route: tuple[str, str],
        guards: Guards,
        *,
        send: Callable[[bytes], None],
        stop: Callable[[MintmarkError], None],
        pause: Callable[[bool], None],
        judges: bool = True,
    ) -> None:
        self._looker = looker
        self._route = route
        self._guards = [one for one in guards.output if judges or one.guard.kind != "judge"]
        self._whole = any(one.is_whole for one in self._guards)
        self._window = Window(guards.window_characters, guards.overlap_characters)
        self._send = send
        self._stop = stop
        self._pause = pause
        self._paused = False
        self._then: Callable[[], None] | None = None
        self._over = self._passed = False
        self._task: asyncio.Task[None] | None = None
        self._notes: dict[str, dict[str, Any]] = {}

    @property
    def is_over(self) -> bool:
        """Everything has left, or nothing more will."""
        return self._over

    @property
    def has_left(self) -> bool:
        """Everything has left, and passed."""
        return self._passed

    @property
    def notes(self) -> list[dict[str, Any]]:
        """One a guard: the worst of its outcomes, its time over all windows, and how many there were."""
        return list(self._notes.values())

    def feed(self, data: bytes) -> None:
        self._window.feed(data)
        if self._whole and self._window.held_bytes > MOST_BYTES:
            self._end(GuardFailed(next(one.guard.name for one in self._guards if one.is_whole)))
            return
        if not self._whole and not self._paused and self._window.held_bytes > PAUSE_BYTES:
            self._paused = True
            self._pause(True)
        self._look()

    def finish(self, then: Callable[[], None]) -> None:
        """No more comes: `then` is called when everything has left."""
        self._window.close()
        self._then = then
        self._look()

    def abandon(self) -> None:
        """Nobody listens any more. What a guard was asked it answers: to take it back would end its process, where
        the questions of others wait.
        """
        self._over = True

    def _look(self) -> None:
        if self._task is None and not self._over and (self._then is not None or self._is_due):
            self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def _is_due(self) -> bool:
        return not self._whole and self._window.is_due

    async def _run(self) -> None:
        try:
            while not self._over and not self._window.is_empty and (self._then is not None or self._is_due):
                await self._one_look()
        except Exception:
            log.exception("unexpected error", extra={"group": self._route[1]})
            self._end(MintmarkError())
        finally:
            self._task = None
        if self._then is not None and not self._over:
            self._over = self._passed = True
            self._then()

    async def _one_look(self) -> None:
        window, final = self._window, self._then is not None
        texts, count = window.texts(), window.count
        masks: dict[Channel, list[Span]] = {}
        for one in self._guards:
            outcome = Outcome()
            if one.is_whole:
                looked = [window.whole()]
                finding = await self._looker.ask(self._route, one, "output", looked, outcome)
            else:
                looked = [text for _, _, text in texts]
                finding = fresh(await self._looker.ask(self._route, one, "output", looked, outcome), texts, outcome)
            if self._over:
                return
            self._note(outcome)
            if outcome.refusal is not None:
                self._end(outcome.refusal)
                return
            if finding is not None and finding.tripped and one.guard.action == "mask":
                for span in finding.spans:
                    masks.setdefault(texts[span.text][0], []).append(span)
        out = window.release(count, masks, final=final and self._then is not None and count == window.count)
        if out:
            self._send(out)
        if self._paused and window.held_bytes < PAUSE_BYTES:
            self._paused = False
            self._pause(False)

    def _note(self, outcome: Outcome) -> None:
        for note in outcome.notes:
            kept = self._notes.setdefault(note["name"], {**note, "ms": 0.0, "windows": 0})
            if WORST.index(note["outcome"]) > WORST.index(kept["outcome"]):
                kept.update(note, ms=kept["ms"])
            kept["ms"] = round(kept["ms"] + note["ms"], 3)
            kept["windows"] += 1

    def _end(self, error: MintmarkError) -> None:
        if not self._over:
            self._over = True
            self._stop(error)


def fresh(finding: Finding | None, texts: Sequence[tuple[Channel, int, str]], outcome: Outcome) -> Finding | None:
    """The finding without what had left before this window; its note and refusal go where nothing else is left."""
    if finding is None or not finding.tripped or not finding.spans:
        return finding
    spans = tuple(span for span in finding.spans if span.end > texts[span.text][1])
    if spans:
        return Finding(True, finding.reason, spans, finding.score)
    outcome.refusal = None
    for note in outcome.notes:
        note.pop("reason", None)
        note["outcome"] = "passed"
    return Finding(False)
