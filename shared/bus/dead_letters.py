"""Dead letters: the original record with the story of its failure, on `<service>.dlq`; replayed from there."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from shared.bus.transport import KafkaSettings
from shared.db import queries
from shared.db.database import Transaction
from shared.errors import MintmarkError, NotFound
from shared.events import dead_letters as topic_of
from shared.events.envelope import REPLAY, Envelope, Origin
from shared.telemetry import metrics

QUERIES = queries.load("shared.bus")
PREFIX = "mintmark-dlq-"
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
Headers = list[tuple[str, bytes]]


async def bury(
    tx: Transaction, service: str, consumer: str, envelope: Envelope, origin: Origin, error: Exception, attempts: int
) -> None:
    """Send the event to the dead letters and mark its inbox row, in this transaction."""
    code = error.code if isinstance(error, MintmarkError) else type(error).__name__
    story = {
        "topic": origin.topic,
        "partition": str(origin.partition),
        "offset": str(origin.offset),
        "timestamp-ms": str(origin.timestamp_ms),
        "consumer": consumer,
        "attempts": str(attempts),
        "error-code": code,
        "error": str(error)[:2000],
        "at": datetime.now(UTC).isoformat(),
    }
    await QUERIES.send_dead_letter(
        tx.connection,
        workspace=envelope.workspace,
        event_id=envelope.id,
        topic=topic_of(service).name,
        type=envelope.type,
        key=envelope.subject,
        data=envelope.data,
        headers=headers_with(envelope.headers(), story),
    )
    await QUERIES.mark_dead(
        tx.connection,
        workspace=envelope.workspace,
        consumer=consumer,
        source=envelope.source,
        event_id=envelope.id,
    )
    tx.fills_outbox()
    metrics.dead_letters.labels(consumer, code).inc()


async def put_aside(
    connection: asyncpg.Connection, service: str, row: asyncpg.Record, headers: Headers, error: Exception
) -> bool:
    """Make an event of the outbox, which its topic does not take, a dead letter; False where it is one already."""
    topic, code = topic_of(service).name, "too-large-for-kafka"
    if row["topic"] == topic:
        return False
    story = {
        "topic": row["topic"],
        "consumer": f"{service}.relay",
        "attempts": "1",
        "error-code": code,
        "error": str(error)[:2000],
        "at": datetime.now(UTC).isoformat(),
    }
    await QUERIES.make_dead_letter(connection, id=row["id"], topic=topic, headers=headers_with(headers, story))
    metrics.dead_letters.labels(story["consumer"], code).inc()
    return True


def headers_with(headers: Headers, story: dict[str, str]) -> list[tuple[str, str]]:
    """A dead letter's headers as the outbox keeps them."""
    told = [*headers, *((PREFIX + name, value.encode()) for name, value in story.items())]
    return [(name, b64encode(value).decode()) for name, value in told]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record of a dead-letter topic; `position` (`<partition>:<offset>`) names it."""

    service: str
    position: str
    key: str
    value: bytes
    headers: dict[str, str]

    def story(self, name: str) -> str:
        return self.headers.get(PREFIX + name, "")


def read(service: str, record: ConsumerRecord) -> DeadLetter:
    """A Kafka record of `<service>.dlq` as a DeadLetter."""
    return DeadLetter(
        service=service,
        position=f"{record.partition}:{record.offset}",
        key=(record.key or b"").decode("utf-8", "replace"),
        value=record.value or b"",
        headers={name: value.decode("utf-8", "replace") for name, value in record.headers},
    )


async def listed(kafka: KafkaSettings, service: str, *, most: int = 1000) -> list[DeadLetter]:
    """The dead letters of a service, oldest first. Reads the topic from its start, commits nothing."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False, **kafka.security()
    )
    await consumer.start()
    try:
        from aiokafka import TopicPartition

        topic = kafka.topic(topic_of(service).name)
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or {0})]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[DeadLetter] = []
        while len(found) < most:
            positions = [await consumer.position(partition) for partition in partitions]
            if all(position >= ends[partition] for position, partition in zip(positions, partitions, strict=True)):
                break
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found.extend(read(service, record) for record in records)
        return found[:most]
    finally:
        await consumer.stop()


async def replay(kafka: KafkaSettings, letter: DeadLetter, producer: AIOKafkaProducer) -> None:
    """Put the original back on its topic, marked as a replay; whoever handled it before leaves it alone."""
    topic = letter.story("topic")
    if not topic:
        raise NotFound(f"dead letter {letter.position} does not say which topic it came from")
    headers = [
        (name, value.encode())
        for name, value in letter.headers.items()
        if not name.startswith(PREFIX) and name != REPLAY
    ]
    await producer.send_and_wait(
        kafka.topic(topic), key=letter.key.encode(), value=letter.value, headers=[*headers, (REPLAY, b"1")]
    )
