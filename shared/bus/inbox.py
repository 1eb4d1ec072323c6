"""Taking one event in: its inbox row and its effect in one transaction, or parked, or dead."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import asyncpg

from shared import faults
from shared.bus import dead_letters
from shared.db import queries
from shared.db.database import Database, Transaction, literal
from shared.errors import Early, Invalid, MintmarkError
from shared.events import cause
from shared.events.base import UNVERIFIED, Actor, Event
from shared.events.envelope import Envelope, Origin, Received, parse
from shared.telemetry import traces

QUERIES = queries.load("shared.bus")

Handler = Callable[[Transaction, Received[Any]], Awaitable[None]]
Refusal = Callable[[Transaction, Envelope, Origin, MintmarkError], Awaitable[None]]
Authors = Callable[[Envelope, str], Actor]
Outcome = Literal["handled", "duplicate", "stale", "parked", "dead", "refused", "ignored"]


def nobody_proven(envelope: Envelope, action: str) -> Actor:
    """No author is proven: for consumers that hear no event from outside."""
    return UNVERIFIED


@dataclass(frozen=True, slots=True)
class Route:
    """One line of a service's table: this event goes to this handler."""

    event: type[Event]
    handle: Handler


@dataclass(frozen=True, slots=True)
class Consumer:
    """One consumer group of a service: what it hears, and how often it tries.

    `raw` hears every record of `raw_topics` unparsed (the ledger). `refuse` answers what comes from outside and is
    not valid; without it such an event is a dead letter.
    """

    name: str
    routes: tuple[Route, ...] = ()
    refuse: Refusal | None = None
    raw: Callable[[Transaction, Envelope, Origin], Awaitable[None]] | None = None
    raw_topics: tuple[str, ...] = ()
    most_tries: int = 5
    most_early_tries: int = 40
    by_type: dict[str, Handler] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_type", {route.event.type(): route.handle for route in self.routes})

    @property
    def topics(self) -> tuple[str, ...]:
        """Declared names of the topics that it subscribes to."""
        return tuple(sorted({route.event.topic.name for route in self.routes} | set(self.raw_topics)))


class Inbox:
    """Runs a consumer's handlers so that every effect happens once."""

    def __init__(self, database: Database, consumer: Consumer, service: str, authors: Authors = nobody_proven) -> None:
        self.database = database
        self.consumer = consumer
        self.service = service
        self._authors = authors

    async def take(
        self,
        envelope: Envelope,
        origin: Origin,
        *,
        on: asyncpg.Connection | None = None,
        refused: MintmarkError | None = None,
    ) -> Outcome:
        """Handle one event in a transaction of its own. An error of the handler rolls all back and is raised.

        `on` is the connection to do it on, else one of the pool's. `refused` says why the record was no event at all.
        """
        try:
            async with self.database.begin_with(self.claiming(envelope, origin), envelope.workspace, on) as tx:
                with Caused(envelope, self.consumer.name, envelope.type):
                    if refused is not None and self.consumer.raw is None:
                        return await self.refuse(tx, envelope, origin, refused)
                    outcome = await self.handle(tx, envelope, origin)
                faults.point("inbox.claimed")
            faults.point("inbox.committed")
            return outcome
        except asyncpg.RaiseError as claim:
            if claim.message == "behind":
                error = MintmarkError("an earlier event of its key waits")
                return await self.set_aside(envelope, origin, error, 0, on=on)
            if claim.message in ("duplicate", "stale"):
                return "stale" if claim.message == "stale" else "duplicate"
            raise

    def claiming(self, envelope: Envelope, origin: Origin) -> str:
        """Opens the transaction of an event: BEGIN and its claim, which raises when there is nothing to do.

        Its commit does not wait for the disk: the subscriber flushes once a batch, before it commits the offsets.
        """
        claim = (
            envelope.workspace,
            self.consumer.name,
            envelope.source,
            envelope.id,
            origin.topic,
            envelope.subject,
            # Who takes every record raw wants the stale ones too: a ledger with gaps proves nothing.
            None if self.consumer.raw is not None else envelope.sequence,
            envelope.replay,
        )
        return f"BEGIN; SET LOCAL synchronous_commit = off; SELECT claim_event({', '.join(map(literal, claim))})"

    async def handle(self, tx: Transaction, envelope: Envelope, origin: Origin) -> Outcome:
        """Run the handler inside a transaction that has claimed the event."""
        if self.consumer.raw is not None:
            await self.consumer.raw(tx, envelope, origin)
            return "handled"
        try:
            event = parse(envelope)
            if event.topic.name != origin.topic:
                # A writer who may use one topic must not speak with the voice of another.
                raise Invalid(f"{envelope.type} does not belong on topic {origin.topic}")
            author = self._authors(envelope, event.permission) if event.external else UNVERIFIED
        except MintmarkError as error:
            return await self.refuse(tx, envelope, origin, error)
        handler = self.consumer.by_type.get(envelope.type)
        if handler is None:
            return "ignored"
        await handler(tx, Received(event, envelope, origin, author))
        return "handled"

    async def refuse(self, tx: Transaction, envelope: Envelope, origin: Origin, error: MintmarkError) -> Outcome:
        """What is not valid will not become so by trying: answer it, or put it among the dead letters."""
        if self.consumer.refuse is not None:
            await self.consumer.refuse(tx, envelope, origin, error)
            return "refused"
        await dead_letters.bury(tx, self.service, self.consumer.name, envelope, origin, error, attempts=1)
        return "dead"

    async def set_aside(
        self,
        envelope: Envelope,
        origin: Origin,
        error: Exception,
        attempts: int,
        *,
        on: asyncpg.Connection | None = None,
    ) -> Outcome:
        """Park an event whose handler failed, or that has one before it, with its inbox row in one transaction."""
        async with self.database.begin(envelope.workspace, on) as tx:
            claimed = await QUERIES.claim_parked(
                tx.connection,
                workspace=envelope.workspace,
                consumer=self.consumer.name,
                source=envelope.source,
                event_id=envelope.id,
            )
            if claimed == "INSERT 0 0":
                return "duplicate"
            await park(tx, self.consumer.name, envelope, origin, error, attempts)
        faults.point("inbox.parked")
        return "parked"


class Caused:
    """Everything inside happens because of this event: its trace, its correlation id."""

    def __init__(self, envelope: Envelope, consumer: str, name: str) -> None:
        self._span = traces.span(
            f"handle {name}",
            kind=traces.SpanKind.CONSUMER,
            parent=envelope.traceparent,
            attributes={
                traces.MESSAGE_ID: envelope.id,
                traces.KAFKA_KEY: envelope.subject,
                traces.CONSUMER_GROUP: consumer,
            },
        )
        self._cause = cause.Cause(envelope.correlation_id or envelope.id, envelope.id)

    def __enter__(self) -> None:
        self._span.__enter__()
        self._token = cause.current.set(self._cause)

    def __exit__(self, *error: Any) -> None:
        cause.current.reset(self._token)
        self._span.__exit__(*error)


FIRST_PARKED_S = 0.25
LONGEST_PARKED_S = 30.0


def backoff_s(attempts: int) -> float:
    """How long after its n-th failed try a parked event waits: 0.25 s doubling to 30 s."""
    return float(min(FIRST_PARKED_S * 2 ** max(attempts - 1, 0), LONGEST_PARKED_S))


async def park(
    tx: Transaction, consumer: str, envelope: Envelope, origin: Origin, error: Exception, attempts: int
) -> None:
    """Keep the event for later, behind what already waits of its key."""
    await QUERIES.park(
        tx.connection,
        workspace=envelope.workspace,
        consumer=consumer,
        topic=origin.topic,
        key=envelope.subject,
        partition=origin.partition,
        position=origin.offset,
        timestamp_ms=origin.timestamp_ms,
        source=envelope.source,
        event_id=envelope.id,
        headers=pack(envelope.headers()),
        data=envelope.data,
        attempts=attempts,
        error_code=code_of(error),
        error=str(error)[:2000],
        wait_s=backoff_s(attempts) if attempts else 0.0,
    )


def pack(headers: list[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Headers as JSON can hold them."""
    return [(name, b64encode(value).decode()) for name, value in headers]


def code_of(error: Exception) -> str:
    return error.code if isinstance(error, MintmarkError) else type(error).__name__


def patience(consumer: Consumer, error: Exception) -> int:
    """How many tries an error deserves: what is only early gets more."""
    return consumer.most_early_tries if isinstance(error, Early) else consumer.most_tries


__all__ = ["Caused", "Consumer", "Handler", "Inbox", "Outcome", "Refusal", "Route", "backoff_s", "park", "patience"]
