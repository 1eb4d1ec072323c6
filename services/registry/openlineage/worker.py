"""Tells an OpenLineage server what is linked here: in order, at least once, and off the way of what is registered."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from services.registry.openlineage.handlers import OpenLineage
from services.registry.openlineage.store import OpenLineageStore, Turn
from services.registry.openlineage.telling import Told
from shared import faults
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database
from shared.errors import MintmarkError, Unavailable
from shared.ids import new_id
from shared.late import loaded

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

LOOK_S = 1.0
LEASE_S = 30.0
ANSWER_S = 10.0
LONGEST_WAIT_S = 60.0
MOST_REFUSALS = 5
"""An event that the server refuses so often is left out, so that it does not hold up the rest for ever."""
REFUSALS = frozenset({400, 409, 413, 422})
"""Answers about the event itself. All others are about the way there (a key that ended, a wrong address, a proxy): the
next event would fare no better, so none is left out for them."""


class Refusal(MintmarkError):
    """The server does not take this event."""

    code = "openlineage-refused"


def wait_s(attempts: int) -> float:
    """Twice as long after each attempt in vain, up to a minute."""
    return min(2.0 ** min(attempts, 10) / 2, LONGEST_WAIT_S)


class Telling:
    """Works off what is new in each workspace; several processes may, a lease says who is at which."""

    name = "openlineage"

    def __init__(
        self,
        database: Database,
        rows: OpenLineageStore,
        lineage: OpenLineage,
        clock: Clock,
        url: str,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._database = database
        self._rows = rows
        self._lineage = lineage
        self._clock = clock
        self._url = url
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._transport = transport

    async def run(self) -> None:
        """Until cancelled."""
        await loaded("httpx")
        import httpx

        async with httpx.AsyncClient(timeout=ANSWER_S, headers=self._headers, transport=self._transport) as client:
            while True:
                try:
                    turn = await self._claim()
                    if turn is not None:
                        await self._work(client, turn)
                        continue
                except MintmarkError as error:
                    log.warning("lineage waits", extra={"service": "registry", "error": str(error)[:300]})
                await asyncio.sleep(LOOK_S)

    async def _claim(self) -> Turn | None:
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            now = self._clock()
            return await self._rows.claim(tx, self._url, new_id(), now, now + timedelta(seconds=LEASE_S))

    async def _work(self, client: httpx.AsyncClient, turn: Turn) -> None:
        """Everything that is new in one workspace, or as far as the server takes it."""
        place, attempts, refusals = turn.place, turn.attempts, turn.refusals
        while True:
            async with self._database.begin(turn.workspace) as tx:
                news = await self._lineage.telling(tx, place)
            if not news:
                await self._rest(turn, LOOK_S)
                return
            for told in news:
                try:
                    for event in told.events:
                        await self._post(client, event)
                except MintmarkError as error:
                    attempts, refusals = attempts + 1, refusals + isinstance(error, Refusal)
                    if not isinstance(error, Refusal) or refusals < MOST_REFUSALS:
                        log.warning("lineage waits", extra={"service": "registry", "error": str(error)[:300]})
                        await self._rest(turn, wait_s(attempts), (attempts, refusals), error.message[:500])
                        return
                    log.error(
                        "lineage left out", extra={"service": "registry", "place": str(told.place), "error": str(error)}
                    )
                    kept = await self._advance(turn, told, skipped=len(told.events))
                else:
                    faults.point("worker.between")  # the server has it, and nothing here says so: it is told again
                    kept = await self._advance(turn, told, posted=len(told.events))
                if not kept:
                    return  # somebody else is at it
                place, attempts, refusals = told.place, 0, 0

    async def _post(self, client: httpx.AsyncClient, event: dict[str, object]) -> None:
        import httpx

        try:
            answer = await client.post(self._url, json=event)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._url} does not answer: {type(error).__name__}") from error
        if answer.status_code in REFUSALS:
            raise Refusal(f"{self._url} answered {answer.status_code}: {answer.text[:300]}")
        if not answer.is_success:
            raise Unavailable(f"{self._url} answered {answer.status_code}: {answer.text[:300]}")

    async def _advance(self, turn: Turn, told: Told, *, posted: int = 0, skipped: int = 0) -> bool:
        async with self._database.begin(turn.workspace) as tx:
            until = self._clock() + timedelta(seconds=LEASE_S)
            return await self._rows.advance(tx, self._url, turn, told.place, until, told=posted, skipped=skipped)

    async def _rest(
        self, turn: Turn, pause_s: float, failed: tuple[int, int] = (0, 0), error: str | None = None
    ) -> None:
        async with self._database.begin(turn.workspace) as tx:
            due_at = self._clock() + timedelta(seconds=pause_s)
            await self._rows.rest(tx, self._url, turn, due_at, failed, error)
