"""What stands between a request and the model, and between the model and the caller: access, caps and guards.

Only an exchange whose group has any of them has one of these. Whatever needs no waiting is decided at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import orjson

from services.router.gateway.caps.prices import pico
from services.router.gateway.caps.reserve import NOTHING, Reservation
from services.router.gateway.guardrails.errors import GuardrailTripped
from services.router.gateway.guardrails.stream import GuardedStream
from services.router.gateway.guardrails.texts import Texts
from services.router.gateway.rows import Answer, Reading
from services.router.gateway.snapshot import Route
from services.router.gateway.translator import Translator
from shared.errors import MintmarkError
from shared.identity import Principal

if TYPE_CHECKING:
    from services.router.gateway.app import Gateway

log = logging.getLogger(__name__)

Then = Callable[[], None]
Refuse = Callable[[MintmarkError], None]
RUNNING: set[asyncio.Task[None]] = set()
"""The loop keeps no task alive by itself."""


class Ward:
    """Of one exchange."""

    __slots__ = (
        "_asked", "_is_judgement", "_key", "_principal", "_protecting", "_protection", "_reservation", "_route",
        "_settings",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, route: Route, principal: Principal, is_judgement: bool) -> None:
        self._settings = gateway.settings
        self._protecting = gateway.protection
        self._route = route
        self._protection = route.protection
        self._principal = principal
        self._is_judgement = is_judgement
        self._key = (route.group.workspace, route.group.name)
        self._reservation: Reservation | None = None
        self._asked: Any = None

    # -- before the model is asked

    def admit(self, translator: Translator, tags: dict[str, Any], then: Then, refuse: Refuse) -> None:
        """Access, then caps, then the guards on the input; `then` or `refuse` is called, now or later.

        `tags` gets `guards`, the notes on each.
        """
        caps, guards = self._protection.caps, self._protection.guards
        looks = guards is not None and bool(guards.input)
        try:
            if looks or (caps is not None and any(cap.unit != "requests" for cap in caps.caps)):
                self._asked = orjson.loads(translator.input or b"null")
            if caps is not None and not self._is_judgement:
                caps.require_access(self._principal)
                if not self._reserve(len(translator.input or b"")):
                    _run(self._wait(translator, tags, then, refuse), refuse)
                    return
        except MintmarkError as error:
            refuse(error)
            return
        if looks:
            _run(self._look(translator, tags, then, refuse), refuse)
        else:
            then()

    def _needs(self, body_bytes: int) -> dict[str, int]:
        assert self._protection.caps is not None
        settings = self._settings
        is_foreign = any(endpoint.is_foreign for endpoint in self._route.endpoints)
        timeout_s = settings.provider_timeout_s if is_foreign else settings.upstream_timeout_s
        return self._protection.caps.needs(self._asked, body_bytes, timeout_s)

    def _reserve(self, body_bytes: int) -> bool:
        """False when a lease must be waited for."""
        caps = self._protection.caps
        assert caps is not None
        found = self._protecting.reserver.at_once(*self._key, caps, self._principal, self._needs(body_bytes))
        self._reservation = found
        return found is not None

    async def _wait(self, translator: Translator, tags: dict[str, Any], then: Then, refuse: Refuse) -> None:
        caps = self._protection.caps
        assert caps is not None
        try:
            needs = self._needs(len(translator.input or b""))
            self._reservation = await self._protecting.reserver.waiting(*self._key, caps, self._principal, needs)
        except MintmarkError as error:
            refuse(error)
            return
        if self._protection.guards is not None and self._protection.guards.input:
            await self._look(translator, tags, then, refuse)
        else:
            then()

    async def _look(self, translator: Translator, tags: dict[str, Any], then: Then, refuse: Refuse) -> None:
        guards = self._protection.guards
        assert guards is not None
        texts = Texts(self._asked)
        judges = not self._is_judgement
        outcome = await self._protecting.looker.look(self._key, guards.input, "input", texts, judges=judges)
        tags["guards"] = outcome.notes
        if outcome.changed:
            # Also where it is refused then: a guard that masks keeps out of the row what it masks.
            translator.rewrite(texts.dump())
        if outcome.refusal is not None:
            refuse(outcome.refusal)
            return
        then()

    # -- before the caller is answered

    @property
    def guards_output(self) -> bool:
        return self._protection.guards is not None and bool(self._protection.guards.output)

    def judge(self, translator: Translator, answer: Answer, tags: dict[str, Any], then: Then, refuse: Refuse) -> None:
        """The guards on a whole answer, which masks are written into."""
        _run(self._judge(translator, answer, tags, then, refuse), refuse)

    async def _judge(
        self, translator: Translator, answer: Answer, tags: dict[str, Any], then: Then, refuse: Refuse
    ) -> None:
        guards = self._protection.guards
        assert guards is not None
        value = _parsed(answer.body)
        is_json = value is not None
        if value is None:  # of the binary extension or of gRPC; or an error of the upstream's in some other form
            value = _parsed(answer.output or b"") or [answer.body.decode("utf-8", "replace")]
        texts = Texts(value)
        asked = guards.output if answer.status < 400 else tuple(one for one in guards.output if not one.is_whole)
        outcome = await self._protecting.looker.look(self._key, asked, "output", texts, judges=not self._is_judgement)
        tags["guards"] = [*tags.get("guards", ()), *outcome.notes]
        if outcome.refusal is not None:
            refuse(outcome.refusal)
            return
        if outcome.changed and not is_json:
            masking = next(note["name"] for note in outcome.notes if note["outcome"] == "masked")
            refuse(GuardrailTripped(masking, "output"))  # there is no way to put a mask into it
            return
        if outcome.changed:
            _rewrite(translator, answer, texts)
        then()

    def stream(
        self, *, send: Callable[[bytes], None], stop: Refuse, pause: Callable[[bool], None]
    ) -> GuardedStream | None:
        """What a streamed answer goes through; None where nothing looks at it."""
        guards = self._protection.guards
        if guards is None or not guards.output:
            return None
        return GuardedStream(
            self._protecting.looker,
            self._key,
            guards,
            send=send,
            stop=stop,
            pause=pause,
            judges=not self._is_judgement,
        )

    def judge_row(self, answer: Answer, then: Then) -> None:
        """Mask what the row keeps of a stream as its events were masked."""
        guards = self._protection.guards
        masks = tuple(one for one in guards.output if one.guard.action == "mask") if guards is not None else ()
        if masks and answer.output is not None:
            _run(self._judge_row(answer, masks, then), lambda _: then())
        else:
            then()

    async def _judge_row(self, answer: Answer, masks: tuple[Any, ...], then: Then) -> None:
        texts = Texts(orjson.loads(answer.output or b"null"))
        answer.output = None
        outcome = await self._protecting.looker.look(self._key, masks, "output", texts)
        if not any(note["outcome"].startswith("failed") for note in outcome.notes):
            answer.output = texts.dump()
        then()

    # -- after it

    def settle(self, answer: Answer, was_asked: bool, error_code: str | None) -> None:
        """What it took instead of what it might have; all of that where an answer of unknown cost was begun."""
        if self._reservation is None:
            return
        took = dict(NOTHING)
        took["requests"] = 1
        if was_asked and error_code != "upstream-failed":
            refused = error_code is not None and error_code.startswith("upstream-") and error_code[9:].isdigit()
            tokens = (answer.input_tokens or 0) + (answer.output_tokens or 0)
            if tokens:
                took["tokens"] = tokens
            elif not refused:
                del took["tokens"]
            if answer.cost_usd is not None:
                took["usd"] = pico(answer.cost_usd)
            elif not refused:
                del took["usd"]
        self._reservation.settle(took)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _rewrite(translator: Translator, answer: Answer, texts: Texts) -> None:
    answer.body = texts.dump()
    if answer.output is None:
        return
    if translator.protocol.startswith("open-inference") and isinstance(texts.value, dict):
        reading = Reading(texts.value)
        answer.output, answer.prediction = reading.output, reading.prediction
    else:
        answer.output = answer.body


def _run(work: Coroutine[Any, Any, None], refuse: Refuse) -> None:
    async def guarded() -> None:
        try:
            await work
        except Exception:  # a defect must not leave the client without an answer
            log.exception("unexpected error")
            refuse(MintmarkError())

    task = asyncio.get_running_loop().create_task(guarded())
    RUNNING.add(task)
    task.add_done_callback(RUNNING.discard)
