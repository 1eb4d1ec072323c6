"""Asks the gateway for one row of a batch, as any client would, and waits where the gateway says to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson

from services.router.batches.domain import UNSENDABLE, Item, Job, Result
from services.router.errors import BatchRefused, FieldRefused, GatewayAway
from shared.clock import Clock
from shared.late import loaded

if TYPE_CHECKING:
    import httpx

TRIES = 5
LONGEST_WAIT_S = 30.0
ANSWER_S = 330.0  # longer than a provider may think (300 s): the gateway is the one to say that it was too long
AGAIN = (429, 503)
CONNECT_S = 5.0

Issue = Callable[[Job], Awaitable[str]]
"""The Authorization header of a job's requests. Raises SealBroken."""


class Asker:
    """One job's requests, at most so many at a time; `async with`."""

    def __init__(self, base_url: str, job: Job, issue: Issue, clock: Clock) -> None:
        self._base_url = base_url
        self._job = job
        self._issue = issue
        self._clock = clock
        self._tags = orjson.dumps({"batch": str(job.id)}).decode()

    async def __aenter__(self) -> Asker:
        await loaded("httpx")  # a router without batches never needs it
        import httpx

        limits = httpx.Limits(max_connections=self._job.spec.concurrency)
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        self._http = httpx.AsyncClient(base_url=self._base_url, limits=limits, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, item: Item) -> Result:
        """The row's answer, of whatever status. Raises GatewayAway, or BatchRefused when every row would be refused."""
        wait_s = 0.5
        for tried in range(TRIES):
            try:
                answer = await self._post(item)
            except FieldRefused as error:
                return Result.refused(item.position, item.id, error)
            if answer.status_code not in AGAIN or tried == TRIES - 1:
                break
            await asyncio.sleep(min(_seconds(answer.headers.get("retry-after"), wait_s), LONGEST_WAIT_S))
            wait_s *= 2
        return self._result(item, answer)

    async def _post(self, item: Item) -> httpx.Response:
        """Raises GatewayAway, FieldRefused."""
        import httpx

        headers = {
            "authorization": await self._issue(self._job),
            "content-type": "application/json",
            "x-mintmark-tags": self._tags,
            "anthropic-version": "2023-06-01",
        }
        if item.id.isascii() and not UNSENDABLE.search(item.id):
            headers["x-request-id"] = item.id
        if item.unit is not None:
            headers["x-mintmark-unit"] = item.unit
        try:
            sent = [(name.encode(), value.encode()) for name, value in headers.items()]
            return await self._http.post(item.path, content=item.body, headers=sent)
        except httpx.LocalProtocolError as error:  # no fault of the gateway's, and none that waiting mends
            raise FieldRefused(f"row {item.position}", f"cannot be sent: {error}") from None
        except httpx.HTTPError as error:
            raise GatewayAway(f"The gateway does not answer: {str(error) or type(error).__name__}.") from None

    def _result(self, item: Item, answer: httpx.Response) -> Result:
        try:
            body: Any = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            body = answer.text
        status, request_id = answer.status_code, answer.headers.get("x-mintmark-request-id")
        code, message = _error(status, body) if status >= 400 else (None, None)
        if request_id is None and status == 401:
            raise GatewayAway(f"The gateway does not take the batch's ticket: {message}")
        if request_id is None and status in (403, 404):  # refused before the group was known, as every row would be
            raise BatchRefused(f"The gateway refuses the batch ({code}): {message}")
        version = answer.headers.get("x-mintmark-version")
        return Result(item.position, item.id, status, request_id, version, body, code, message)


def _error(status: int, body: Any) -> tuple[str, str]:
    """Our code and sentence, out of whichever protocol's error."""
    said = body if isinstance(body, dict) else {}
    inner = said.get("error")
    if isinstance(inner, dict):  # OpenAI's and Anthropic's
        said = inner
    message = said.get("detail") or said.get("message") or (inner if isinstance(inner, str) else None)
    return str(said.get("code") or said.get("type") or f"status-{status}"), str(message or f"The answer was {status}.")[
        :2000
    ]


def _seconds(value: str | None, otherwise: float) -> float:
    try:
        return max(0.0, float(value)) if value else otherwise
    except ValueError:
        return otherwise
