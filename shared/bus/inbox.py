"""Taking one event in: its inbox row and its effect in one transaction, or parked, or dead."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.bus import dead_letters
from shared.db.database import Database, Transaction
from shared.errors import Early, Invalid, MintmarkError
from shared.events import cause
from shared.events.base import UNVERIFIED, Actor, Event
from shared.events.envelope import Envelope, Origin, Received, parse
from shared.telemetry import traces

Handler = Callable[[Transaction, Received[Any]], Awaitable[None]]
Refusal = Callable[[Transaction, Envelope, Origin, MintmarkError], Awaitable[None]]
Authors = Callable[[Envelope], Actor]
Outcome = Literal["handled", "duplicate", "stale", "parked", "dead", "refused", "ignored"]


def nobody_proven(envelope: Envelope) -> Actor:
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

    async def take(self, envelope: Envelope, origin: Origin) -> Outcome:
        """Handle one event in a transaction of its own. An error of the handler rolls all back and is raised."""
        async with self.database.begin_unclaimed(envelope.workspace) as tx:
            claim = await self._claim(tx, envelope, origin)
            if claim == "behind":
                await park(tx, self.consumer.name, envelope, origin, MintmarkError("an earlier event of its key waits"), 0)
                return "parked"
            if claim != "new":
                return "stale" if claim == "stale" else "duplicate"
            with self._as_cause(envelope):
                return await self.handle(tx, envelope, origin)

    async def _claim(self, tx: Transaction, envelope: Envelope, origin: Origin) -> str:
        claim: str = await tx.connection.fetchval(
            "SELECT claim_event($1, $2, $3, $4, $5, $6, $7, $8)",
            envelope.workspace,
            self.consumer.name,
            envelope.source,
            envelope.id,
            origin.topic,
            envelope.subject,
            envelope.sequence,
            envelope.replay,
        )
        return claim

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
            author = self._authors(envelope) if event.external else UNVERIFIED
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

    def _as_cause(self, envelope: Envelope) -> Any:
        return Caused(envelope, self.consumer.name, envelope.type)

    async def set_aside(self, envelope: Envelope, origin: Origin, error: Exception, attempts: int) -> Outcome:
        """Park an event whose handler failed, with its inbox row, in a transaction of its own."""
        async with self.database.begin_unclaimed(envelope.workspace) as tx:
            claim = await self._claim(tx, envelope, origin)
            if claim in ("duplicate", "stale"):
                return "duplicate"
            await park(tx, self.consumer.name, envelope, origin, error, attempts)
            await tx.connection.execute(
                "UPDATE inbox SET outcome = 'parked' WHERE event_id = $1 AND source = $2 AND consumer = $3 AND workspace = $4",
                envelope.id, envelope.source, self.consumer.name, envelope.workspace,
            )  # fmt: skip
            return "parked"


class Caused:
    """Everything inside happens because of this event: its trace, its correlation id."""

    def __init__(self, envelope: Envelope, consumer: str, name: str) -> None:
        self._span = traces.span(
            f"handle {name}",
            kind=traces.SpanKind.CONSUMER,
            parent=envelope.traceparent,
            attributes={traces.MESSAGE_ID: envelope.id, traces.KAFKA_KEY: envelope.subject, traces.CONSUMER_GROUP: consumer},
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


async def park(tx: Transaction, consumer: str, envelope: Envelope, origin: Origin, error: Exception, attempts: int) -> None:
    """Keep the event for later, behind what already waits of its key."""
    await tx.connection.execute(
        'INSERT INTO parked (workspace, consumer, topic, key, partition, "offset", timestamp_ms, source, event_id, headers, data, '
        "attempts, error_code, error, next_try_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, now() + make_interval(secs => $15))",
        envelope.workspace, consumer, origin.topic, envelope.subject, origin.partition, origin.offset, origin.timestamp_ms,
        envelope.source, envelope.id, pack(envelope.headers()), envelope.data,
        attempts, code_of(error), str(error)[:2000], backoff_s(attempts) if attempts else 0.0,
    )  # fmt: skip


def pack(headers: list[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Headers as JSON can hold them."""
    return [(name, b64encode(value).decode()) for name, value in headers]


def code_of(error: Exception) -> str:
    return error.code if isinstance(error, MintmarkError) else type(error).__name__


def patience(consumer: Consumer, error: Exception) -> int:
    """How many tries an error deserves: what is only early gets more."""
    return consumer.most_early_tries if isinstance(error, Early) else consumer.most_tries


__all__ = ["Caused", "Consumer", "Handler", "Inbox", "Outcome", "Refusal", "Route", "backoff_s", "park", "patience"]
