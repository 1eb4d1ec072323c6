"""The way in: one FastStream batch subscriber a consumer group, worked off in lanes that keep the order of each key.

The offset advances over everything that was handled, parked or buried; only when Postgres is gone is a batch handed
back (NACK) and read again. A crash anywhere leads to redelivery, which the inbox recognises.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

import asyncpg
from aiokafka import ConsumerRecord, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import KafkaAckableMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from shared import faults
from shared.bus.inbox import Inbox, Outcome, patience
from shared.bus.parking import Parking
from shared.bus.progress import SILENT_S, Assignment, Progress, lags
from shared.bus.transport import KafkaSettings
from shared.errors import Early, MintmarkError, Unavailable
from shared.events.envelope import DEFAULT_WORKSPACE, Envelope, Origin, decode
from shared.telemetry import metrics

log = logging.getLogger(__name__)

SPARE_CONNECTIONS = 2
"""What a consumer's lanes leave of the pool to requests and workers."""
BATCH_RECORDS = 500
TRIES_IN_PLACE_S = (0.05, 0.2)  # waits between quick tries; a neighbour in the lane is delayed by their sum
PATIENT_S = 1.0  # a lane that has worked at its batch for so long sets aside at once what fails: many fail together
LOOK_EVERY_S = 1.0
LOOK_WITHIN_S = 5.0
STOP_WITHIN_S = 15.0


class Subscriber:
    """A consumer group on Kafka, from start to drained stop."""

    def __init__(self, inbox: Inbox, kafka: KafkaSettings) -> None:
        self._inbox = inbox
        self._kafka = kafka
        self._consumer = inbox.consumer
        # Transactions at once; keys are spread over them. More share each flush of Postgres' log, the slowest part.
        self._lanes = max(1, inbox.database.pool_size - SPARE_CONNECTIONS)
        self.progress = Progress()
        self.parking = Parking(inbox)
        self._tasks: list[asyncio.Task[None]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._broker = KafkaBroker(
            kafka.bootstrap,
            client_id=f"mintmark-{self._consumer.name}",
            allow_auto_create_topics=False,
            apply_types=False,
            logger=None,
            request_timeout_ms=15_000,
            metadata_max_age_ms=30_000,
            security=_security_of(kafka),
        )
        self._subscription = self._broker.subscriber(
            *(kafka.topic(topic) for topic in self._consumer.topics),
            group_id=self.group,
            batch=True,
            max_records=BATCH_RECORDS,
            batch_timeout_ms=200,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
            parser=self._parse,
            decoder=_records,
            listener=Assignment(self.progress),
            session_timeout_ms=round(kafka.session_timeout_s * 1000),
            heartbeat_interval_ms=round(kafka.session_timeout_s * 200),
            max_poll_interval_ms=300_000,
            fetch_max_wait_ms=500,
        )
        self._subscription(self._take)

    @property
    def group(self) -> str:
        """The Kafka group id: `mintmark.<consumer>`, behind the installation's prefix."""
        return f"{self._kafka.topic_prefix}mintmark.{self._consumer.name}"

    async def start(self) -> None:
        """Join the group and begin. A broker that does not answer yet is waited for in the background."""
        self.progress.moved_at = time.monotonic()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self.parking.run())]

    async def _parse(self, records: tuple[ConsumerRecord, ...]) -> KafkaMessage:
        """Records as they are: the client's own parser reads headers as UTF-8.

        It would lose a whole batch over one header that is not.
        """
        consumer = self._subscription.consumer
        assert consumer is not None
        return KafkaAckableMessage(body=b"", headers={}, raw_message=records, consumer=consumer)

    async def _run(self) -> None:
        """Read until cancelled, with a new client when the one before has stalled."""
        while True:
            await self._connect()
            why = await self._watch()
            metrics.consumer_restarts.labels(self._consumer.name).inc()
            log.error("the Kafka client stands still and is replaced", extra={"consumer": self.group, "error": why})
            await self._disconnect()

    async def _connect(self) -> None:
        while True:
            self.progress.begin(time.monotonic())
            self.progress.assigned = False
            try:
                async with asyncio.timeout(SILENT_S):  # it returns when the group has decided
                    await self._broker.start()
                return
            except Exception as error:  # the client raises many kinds while a broker comes up
                log.warning(
                    "Kafka does not answer yet", extra={"consumer": self._consumer.name, "error": repr(error)[:200]}
                )
                with contextlib.suppress(Exception):
                    await self._broker.stop()
                await asyncio.sleep(1)

    async def _disconnect(self) -> None:
        """Leave the group, whatever state the client is in."""
        consumer = self._subscription.consumer
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._broker.stop()
        # A client whose coordination has ended does not stop in order. Were its heartbeats to go on, the group would
        # leave partitions with it for ever; without them it is forgotten when its session ends.
        if consumer is not None and (heartbeats := consumer._coordinator._heartbeat_task) is not None:
            heartbeats.cancel()

    async def stop(self) -> None:
        """Let the batch in hand end, commit it, leave the group."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), 20)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._broker.stop(), STOP_WITHIN_S)

    async def _take(self, records: tuple[ConsumerRecord, ...]) -> None:
        self._idle.clear()
        try:
            # By topic and key, the unit that must stay in order; whichever lane is free takes the next one.
            runs: dict[tuple[str, bytes | None], list[ConsumerRecord]] = defaultdict(list)
            for record in records:
                runs[record.topic, record.key].append(record)
            waiting = iter(runs.values())
            lanes = min(self._lanes, len(runs))
            results = await asyncio.gather(*(self._work(waiting) for _ in range(lanes)), return_exceptions=True)
            self.progress.moved_at = time.monotonic()
            failures = [result for result in results if isinstance(result, BaseException)]
            if failures:
                # NACK reads again at once; without this pause a lost database would be hammered.
                await asyncio.sleep(0.5)
                raise failures[0]
            await self._inbox.database.flush()
            faults.point("inbox.flushed")
        finally:
            self._idle.set()

    async def _work(self, waiting: Iterator[list[ConsumerRecord]]) -> None:
        patient_until = time.monotonic() + PATIENT_S
        async with self._inbox.database.acquire() as connection:
            for record in chain.from_iterable(waiting):
                topic = self._kafka.declared(record.topic)
                began = time.perf_counter()
                origin = Origin(topic, record.partition, record.offset, record.timestamp)
                outcome = await self._take_one(record, origin, connection, patient_until)
                metrics.handler_seconds.labels(self._consumer.name, topic).observe(time.perf_counter() - began)
                metrics.handled.labels(self._consumer.name, topic, outcome).inc()

    async def _take_one(
        self, record: ConsumerRecord, origin: Origin, connection: asyncpg.Connection, patient_until: float
    ) -> Outcome:
        try:
            envelope = decode(record.value, record.headers, record.key)
        except MintmarkError as error:
            return await self._refuse(record, origin, connection, error)
        attempts = 0
        while True:
            try:
                return await self._inbox.take(envelope, origin, on=connection)
            except (Unavailable, asyncio.CancelledError):
                raise
            except Exception as error:
                attempts += 1
                if (
                    isinstance(error, Early)
                    or attempts > len(TRIES_IN_PLACE_S)
                    or attempts >= patience(self._consumer, error)
                    or time.monotonic() > patient_until
                ):
                    self._say(envelope, error)
                    return await self._inbox.set_aside(envelope, origin, error, attempts, on=connection)
                await asyncio.sleep(TRIES_IN_PLACE_S[attempts - 1])

    async def _refuse(
        self, record: ConsumerRecord, origin: Origin, connection: asyncpg.Connection, error: MintmarkError
    ) -> Outcome:
        """A record that is no CloudEvent: refused or buried under a name made of its position."""
        envelope = Envelope(
            id=f"{origin.topic}/{origin.partition}/{origin.offset}",
            source="unknown",
            type=f"{origin.topic}.unknown",
            subject=(record.key or b"unknown").decode("utf-8", "replace")[:500].replace("\x00", "") or "unknown",
            data=record.value or b"",
            workspace=DEFAULT_WORKSPACE,
        )
        return await self._inbox.take(envelope, origin, on=connection, refused=error)

    def _say(self, envelope: Envelope, error: Exception) -> None:
        log.log(
            logging.INFO if isinstance(error, Early) else logging.WARNING,
            "event set aside",
            extra={
                "consumer": self._consumer.name,
                "event_id": envelope.id,
                "type": envelope.type,
                "error": str(error)[:500],
            },
            exc_info=None if isinstance(error, MintmarkError) else error,
        )

    async def _watch(self) -> str:
        """Keep lag and assignment current for readiness and metrics; returns why the client has to be replaced."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            consumer = self._subscription.consumer
            if consumer is not None:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(LOOK_WITHIN_S):
                        self._saw(await lags(consumer))
            if self._idle.is_set() and (why := self.progress.stall(time.monotonic())):
                if await self._kafka.answers():
                    return why
                self.progress.begin(time.monotonic())

    def _saw(self, found: Mapping[TopicPartition, tuple[int, int]]) -> None:
        for partition, (_, behind) in found.items():
            topic = self._kafka.declared(partition.topic)
            metrics.consumer_lag.labels(self._consumer.name, topic, partition.partition).set(behind)
        positions = {partition: position for partition, (position, _) in found.items()}
        self.progress.saw(positions, sum(behind for _, behind in found.values()), time.monotonic())


async def _records(message: KafkaMessage) -> tuple[ConsumerRecord, ...]:
    raw = message.raw_message
    return raw if isinstance(raw, tuple) else (raw,)


def _security_of(kafka: KafkaSettings) -> BaseSecurity | None:
    """The settings in the client framework's own terms."""
    if kafka.security_protocol == "PLAINTEXT":
        return None
    arguments = kafka.security()
    context, encrypted = arguments["ssl_context"], kafka.security_protocol.endswith("SSL")
    if not kafka.sasl_username:
        return BaseSecurity(ssl_context=context, use_ssl=encrypted)
    kind = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}[kafka.sasl_mechanism]
    return kind(kafka.sasl_username, kafka.sasl_password or "", ssl_context=context, use_ssl=encrypted)
