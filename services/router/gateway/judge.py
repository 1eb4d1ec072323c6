"""A model as a judge: a guard's question is an exchange like any caller's, with a row in the judge's own group."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, cast

import orjson

from services.router.gateway.chat import Chat
from services.router.gateway.guardrails.findings import Finding
from services.router.gateway.guardrails.texts import answer_text
from services.router.gateway.guardrails.workers import GuardError
from services.router.gateway.http_server import ClientConnection, Request
from services.router.gateway.protocols import CHAT
from shared.events.guardrails import JudgeGuard
from shared.identity import Principal

if TYPE_CHECKING:
    from services.router.gateway.app import Gateway

PATH = "/v1/chat/completions"
NUMBER = re.compile(r"(?<![\d.])(?:0(?:\.\d+)?|1(?:\.0+)?|\.\d+)(?![\d.]*\d)")
MOST_CHARACTERS = 100_000


class Judges:
    """Asks the groups of judges, through the gateway's own pools."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def ask(self, workspace: str, guard: JudgeGuard, text: str) -> Finding:
        """What the judge says of the text. Raises GuardError when it says nothing that can be read."""
        from services.router.gateway.warded import WardedExchange  # each knows the other: a judgement is an exchange

        snapshot = self._gateway.snapshot
        route = snapshot.routes.get(guard.group) if snapshot is not None else None
        if route is None or route.group.workspace != workspace:
            raise GuardError(f"there is no group {guard.group!r} to judge")
        if len(text) > MOST_CHARACTERS:
            raise GuardError(f"the text has more than {MOST_CHARACTERS} characters")
        asked = {
            "model": guard.group,
            "messages": [{"role": "user", "content": guard.prompt.replace("{text}", text)}],
            "max_tokens": guard.max_tokens,
        }
        waiting = Waiting()
        request = Request(
            b"POST", PATH.encode(), {}, orjson.dumps(asked), cast(ClientConnection, waiting), True, time.perf_counter()
        )
        principal = Principal(f"guard:{guard.name}", workspace, frozenset())
        translator = Chat(CHAT.open(request.body, PATH))
        WardedExchange(self._gateway, request, route, translator, principal, is_judgement=True).begin()
        return read(guard, await waiting.answered)


class Waiting:
    """Stands where a client's connection would; takes one whole answer."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def answer(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result((status, body))


def read(guard: JudgeGuard, answered: tuple[int, bytes]) -> Finding:
    """Raises GuardError for an answer that is neither what the guard reads nor an answer at all."""
    status, body = answered
    if status >= 400:
        raise GuardError(f"the judge answered {status}")
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise GuardError("the judge's answer is not JSON") from None
    said = (answer_text(value) or "").strip()
    if guard.reads == "yes_no":
        word = re.match(r"\W*(yes|no)\b", said, re.IGNORECASE)
        if word is None:
            raise GuardError("the judge answered neither yes nor no")
        return Finding(word.group(1).lower() == "yes", f"the judge {guard.group} says yes")
    number = NUMBER.search(said)
    if number is None:
        raise GuardError("the judge's answer holds no number from 0 to 1")
    score = float(number.group())
    return Finding(score >= guard.threshold, f"the judge {guard.group} scored {score:g}", (), score)
