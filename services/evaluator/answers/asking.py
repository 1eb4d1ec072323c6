"""Asks a group of the gateway, by OpenAI's chat completions: some requests at once, each tried a few times.

What a row's request comes to is its own: an answer, or a reason why there is none. Only when most rows of a shard meet
a gateway that is away or overloaded is the shard given back, to be asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from services.evaluator.domain import Answer, Question
from services.evaluator.errors import GatewayUnavailable
from shared.late import loaded

if TYPE_CHECKING:
    import httpx

TRIES = 3
PAUSE_S = 0.5
"""Before the second try, doubled before each further one."""
LONGEST_WAIT_S = 30.0
"""A server that asks (Retry-After) for more patience than this is asked again with the whole shard."""
MOST_BYTES = 4 * 1024 * 1024
MOST_CHARACTERS = 100_000
"""What is compared of an answer; none of the length that was asked for comes near."""


class _Passing(Exception):
    """What may be otherwise in a moment; `wait_s` where the server says when."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.wait_s = wait_s


class _Refused(Exception):
    """It would be the same the next time."""


@dataclass(frozen=True, slots=True)
class Asking:
    """An address that answers OpenAI's chat completions, with the key that may call it."""

    url: str
    key: str
    at_once: int
    timeout_s: float
    max_tokens: int

    async def ask(self, model: str, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in any order. Raises GatewayUnavailable when most met no working gateway."""
        await loaded("httpx")  # an evaluator that measures models never needs it
        import httpx

        turns = asyncio.Semaphore(self.at_once)
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=self.timeout_s) as client:

            async def one(question: Question) -> Answer | _Passing:
                async with turns:
                    return await self._asked(client, model, question)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(question)) for question in questions]
        found = [(question.row, task.result()) for question, task in zip(questions, tasks, strict=True)]
        passing = Counter(came.why for _, came in found if isinstance(came, _Passing))
        if passing.total() * 2 > len(questions):
            why, count = passing.most_common(1)[0]
            raise GatewayUnavailable(
                f"group {model!r} at {self.url} did not answer {passing.total()} of {len(questions)} rows, "
                f"{count} times because of: {why}"
            )
        return [Answer(row, why=came.why) if isinstance(came, _Passing) else came for row, came in found]

    async def _asked(self, client: httpx.AsyncClient, model: str, question: Question) -> Answer | _Passing:
        body = {
            "model": model, "messages": question.messages, "temperature": 0, "max_tokens": self.max_tokens,
            "stream": False,
        }  # fmt: skip
        try:
            content = orjson.dumps(body)
        except TypeError:
            return Answer(question.row, why="the prompt has no JSON")
        last = _Passing("not asked")
        for attempt in range(TRIES):
            started = time.perf_counter()
            try:
                text, tokens = await self._post(client, content)
                return Answer(question.row, text, (time.perf_counter() - started) * 1000, tokens)
            except _Refused as refused:
                return Answer(question.row, why=str(refused))
            except _Passing as passing:
                last = passing
            wait_s = PAUSE_S * 2**attempt if last.wait_s is None else last.wait_s
            if attempt + 1 == TRIES or wait_s > LONGEST_WAIT_S:
                break
            await asyncio.sleep(wait_s)
        return last

    async def _post(self, client: httpx.AsyncClient, content: bytes) -> tuple[str, int | None]:
        """Text and tokens of an answer. Raises _Passing or _Refused."""
        import httpx

        kind = {"content-type": "application/json"}
        try:
            # httpx's own limit is between two reads; a server that dribbles would have the row for ever.
            async with (
                asyncio.timeout(self.timeout_s),
                client.stream("POST", "/v1/chat/completions", content=content, headers=kind) as answer,
            ):
                status, received = answer.status_code, bytearray()
                if status == 429:
                    raise _Passing("status 429", _seconds(answer.headers.get("retry-after")))
                if status == 408 or status >= 500:
                    raise _Passing(f"status {status}")
                if status != 200:
                    raise _Refused(f"status {status}")
                async for chunk in answer.aiter_bytes():
                    received += chunk
                    if len(received) > MOST_BYTES:
                        raise _Refused(f"an answer of more than {MOST_BYTES} bytes")
        except TimeoutError:
            raise _Passing("timeout") from None
        except httpx.InvalidURL:
            raise _Refused("the gateway's address is none") from None
        except httpx.HTTPError as error:
            raise _Passing("timeout" if isinstance(error, httpx.TimeoutException) else type(error).__name__) from None
        return _read(bytes(received))


def _read(received: bytes) -> tuple[str, int | None]:
    try:
        answer = orjson.loads(received)
        text = answer["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise _Refused("no chat completion") from None
    if not isinstance(text, str):
        raise _Refused("an answer without text")
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return text[:MOST_CHARACTERS], tokens if _is_count(tokens) else None


def _is_count(tokens: Any) -> bool:
    return isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 2**31


def _seconds(text: str | None) -> float | None:
    """Retry-After as seconds; a date is not read."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 9 else None
