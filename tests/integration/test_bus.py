"""The bus on a real Kafka and a real Postgres: outbox, relay, inbox, parking, dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from operator import attrgetter
from uuid import uuid4

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from shared.bus import dead_letters, progress
from shared.bus.inbox import Consumer, Inbox, Route
from shared.bus.relay import Relay
from shared.bus.subscriber import Subscriber
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.db.migrate import migrate, read
from shared.errors import Early
from shared.events.base import Actor, AssetRef
from shared.events.envelope import Received
from shared.events.registry import AssetChanged, BindingCreated
from shared.telemetry import metrics, traces
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
DIGEST = "sha256:" + "a" * 64


def binding(name: str, consumer: str = "reader") -> BindingCreated:
    return BindingCreated(
        binding_id=uuid4(),
        asset=AssetRef(urn=f"mm:model/{name}", version=1, digest=DIGEST),
        consumer=consumer,
        purpose="test",
        actor=Actor(id="user:ada", proven=True),
    )


class Side:
    """A schema with the kernel's tables and one table of effects."""

    subscriber: Subscriber

    def __init__(self, installation: Installation, service: str) -> None:
        self.installation = installation
        self.service = service
        self.database = Database(installation.dsn(service), service)
        self.seen: list[str] = []
        self.fail: dict[str, list[Exception]] = {}

    async def open(self) -> None:
        await migrate(self.database, read("shared", files("shared.db").joinpath("migrations")))
        await self.database.open()
        async with self.database.acquire() as connection:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS effect "
                "(id bigint GENERATED ALWAYS AS IDENTITY, workspace text, urn text, consumer text)"
            )

    async def handle(self, tx: Transaction, received: Received[BindingCreated]) -> None:
        event = received.event
        self.seen.append(event.consumer)
        await tx.connection.execute(
            "INSERT INTO effect (workspace, urn, consumer) VALUES ($1, $2, $3)",
            tx.workspace,
            event.asset.urn,
            event.consumer,
        )
        failures = self.fail.get(event.consumer)
        if failures:
            raise failures.pop(0)

    async def effects(self) -> list[tuple[str, str]]:
        async with self.database.acquire() as connection:
            return [
                (row["urn"], row["consumer"])
                for row in await connection.fetch("SELECT urn, consumer FROM effect ORDER BY id")
            ]

    def consumer(self, **more: object) -> Consumer:
        return Consumer(self.service, (Route(BindingCreated, self.handle),), **more)  # type: ignore[arg-type]


@asynccontextmanager
async def pair(installation: Installation, **more: object) -> AsyncIterator[tuple[Side, Side]]:
    """A publishing side with its relay and a hearing side with its subscriber."""
    await installation.make_topics("binding.created", "asset.changed", "policy.dlq", "registry.dlq")
    out, into = Side(installation, "registry"), Side(installation, "policy")
    await out.open()
    await into.open()
    relay = asyncio.create_task(Relay(out.database, installation.kafka, "registry").run())
    relay_of_hearer = asyncio.create_task(Relay(into.database, installation.kafka, "policy").run())
    subscriber = Subscriber(Inbox(into.database, into.consumer(**more), "policy"), installation.kafka)
    into.subscriber = subscriber
    await subscriber.start()
    try:
        yield out, into
    finally:
        await subscriber.stop()
        for task in (relay, relay_of_hearer):
            task.cancel()
        await asyncio.gather(relay, relay_of_hearer, return_exceptions=True)
        await out.database.close()
        await into.database.close()


async def say(side: Side, *events: BindingCreated) -> None:
    async with side.database.begin("default") as tx:
        for event in events:
            tx.emit(event)


async def test_what_commits_arrives_once_and_in_order(bare_installation: Installation) -> None:
    async with pair(bare_installation) as (out, into):
        for number in range(50):
            await say(out, binding("credit-pd", f"c{number}"), binding(f"other-{number}", "x"))
        effects = await eventually(into.effects, lambda found: len(found) >= 100)
        assert [consumer for urn, consumer in effects if urn == "mm:model/credit-pd"] == [f"c{n}" for n in range(50)]
        assert len(effects) == 100


async def test_what_rolls_back_says_nothing(bare_installation: Installation) -> None:
    async with pair(bare_installation) as (out, into):
        with pytest.raises(RuntimeError):
            async with out.database.begin("default") as tx:
                tx.emit(binding("never"))
                raise RuntimeError("the business failed")
        await say(out, binding("after"))
        effects = await eventually(into.effects, bool)
        assert effects == [("mm:model/after", "reader")]


async def test_duplicates_have_one_effect(bare_installation: Installation) -> None:
    async with pair(bare_installation) as (_, into):
        await bare_installation.publish(binding("credit-pd"), event_id="the-one", times=5)
        await bare_installation.publish(binding("credit-pd", "last"))
        effects = await eventually(into.effects, lambda found: ("mm:model/credit-pd", "last") in found)
        assert effects == [("mm:model/credit-pd", "reader"), ("mm:model/credit-pd", "last")]


async def test_a_stale_event_is_dropped(bare_installation: Installation) -> None:
    async with pair(bare_installation) as (_, into):
        await bare_installation.publish(binding("credit-pd", "new"), sequence=7)
        await bare_installation.publish(binding("credit-pd", "old"), sequence=6)
        await bare_installation.publish(binding("credit-pd", "next"), sequence=8)
        effects = await eventually(into.effects, lambda found: len(found) >= 2)
        assert [consumer for _, consumer in effects] == ["new", "next"]


async def test_an_early_event_waits_and_keeps_the_order_of_its_key(bare_installation: Installation) -> None:
    async with pair(bare_installation) as (out, into):
        into.fail["first"] = [Early("not known yet"), Early("not known yet"), Early("not known yet")]
        await say(out, binding("credit-pd", "first"))
        await say(out, binding("credit-pd", "second"))
        await say(out, binding("neighbour", "third"))
        effects = await eventually(into.effects, lambda found: len(found) >= 3)
        assert effects[0] == ("mm:model/neighbour", "third")
        assert [consumer for urn, consumer in effects if urn == "mm:model/credit-pd"] == ["first", "second"]


async def test_poison_goes_to_the_dead_letters_and_can_be_replayed_once(bare_installation: Installation) -> None:
    async with pair(bare_installation) as (out, into):
        into.fail["poison"] = [ValueError("cannot digest this")] * 5
        await say(out, binding("credit-pd", "poison"))
        await say(out, binding("credit-pd", "behind"))
        await say(out, binding("neighbour", "beside"))
        effects = await eventually(into.effects, lambda found: ("mm:model/credit-pd", "behind") in found)
        assert effects == [("mm:model/neighbour", "beside"), ("mm:model/credit-pd", "behind")]
        assert into.seen.count("poison") == 5

        async def dead() -> list[dead_letters.DeadLetter]:
            return await dead_letters.listed(bare_installation.kafka, "policy")

        (letter,) = await eventually(dead, bool)
        assert letter.story("error") == "cannot digest this"
        assert letter.story("topic") == "binding.created"
        assert letter.story("attempts") == "5"
        producer = await bare_installation.producer()
        await dead_letters.replay(bare_installation.kafka, letter, producer)
        await dead_letters.replay(bare_installation.kafka, letter, producer)
        await eventually(into.effects, lambda found: ("mm:model/credit-pd", "poison") in found)
        await say(out, binding("credit-pd", "end"))
        effects = await eventually(into.effects, lambda found: ("mm:model/credit-pd", "end") in found)
        assert effects.count(("mm:model/credit-pd", "poison")) == 1


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"{", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"x"), ("ce_type", b"binding.created.v1")]),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"x"), ("ce_type", b"binding.created.v1")]),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"x"), ("ce_type", b"binding.created.v9")]),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"x"), ("ce_type", b"gate.decided.v1")]),
        (b"not a cloudevent", []),
        (None, []),
        (b"\xff\xfe", [("ce_id", b"\xff")]),
        (b'{"data": {"a": NaN}}', [("content-type", b"application/cloudevents+json")]),
    ],
)
async def test_garbage_is_buried_and_blocks_nobody(
    bare_installation: Installation, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    async with pair(bare_installation) as (out, into):
        await bare_installation.send_raw("binding.created", value, headers, b"mm:model/x")
        await say(out, binding("credit-pd", "after"))
        await eventually(into.effects, lambda found: found == [("mm:model/credit-pd", "after")])

        async def dead() -> list[dead_letters.DeadLetter]:
            return await dead_letters.listed(bare_installation.kafka, "policy")

        (letter,) = await eventually(dead, bool)
        assert letter.story("error")


async def takes_at_most(installation: Installation, size: int, *topics: str) -> None:
    """As if whoever runs the cluster had set a lower limit for records, or a higher one."""
    admin = installation.kafka.admin()
    await admin.start()
    try:
        for topic in map(installation.kafka.topic, topics):
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})
            (answer,) = await admin.alter_configs([resource])
            assert [code for code, *_ in answer.resources] == [0], answer
    finally:
        await admin.close()


async def takes_no_more_than(installation: Installation, size: int, *topics: str) -> None:
    """The same, once the broker does so: it hears of it a little later. What it took until then is garbage."""
    await takes_at_most(installation, size, *topics)
    for topic in topics:

        async def is_refused(topic: str = topic) -> bool:
            try:
                await installation.send_raw(topic, b"x" * (size + 1), [])
            except dead_letters.TOO_LARGE:
                return True
            return False

        await eventually(is_refused, bool, what="the lower limit")


def large(name: str) -> BindingCreated:
    return binding(name, "large").model_copy(update={"purpose": "x" * 3_000})


async def test_an_event_too_large_for_kafka_is_put_aside_and_the_others_go_on(bare_installation: Installation) -> None:
    async with pair(bare_installation) as (out, into):
        await takes_no_more_than(bare_installation, 2_500, "binding.created")
        before = metrics.dead_letters.labels("registry.relay", "too-large-for-kafka")._value.get()
        # In one round; those of the same key that fit are together too large for one batch.
        small = [binding("credit-pd", f"after-{number}") for number in range(10)]
        await say(out, binding("credit-pd", "first"), large("credit-pd"), *small, binding("neighbour", "beside"))
        effects = await eventually(into.effects, lambda found: len(found) == 12)
        assert [consumer for urn, consumer in effects if urn == "mm:model/credit-pd"] == [
            "first", *(f"after-{number}" for number in range(10)),
        ]  # fmt: skip

        async def dead() -> list[dead_letters.DeadLetter]:
            return await dead_letters.listed(bare_installation.kafka, "registry")

        (letter,) = await eventually(dead, bool)
        assert (letter.story("topic"), letter.story("error-code")) == ("binding.created", "too-large-for-kafka")
        assert b"x" * 3_000 in letter.value
        assert metrics.dead_letters.labels("registry.relay", "too-large-for-kafka")._value.get() == before + 1
        await eventually(lambda: left(out), lambda found: found == [])

        # Where the limit is raised it is delivered late, though later ones of its key were there before.
        await takes_at_most(bare_installation, 1_000_000, "binding.created")
        producer = await bare_installation.producer()

        async def is_replayed() -> bool:
            try:
                await dead_letters.replay(bare_installation.kafka, letter, producer)
            except dead_letters.TOO_LARGE:
                return False
            return True

        await eventually(is_replayed, bool, what="the higher limit")
        await eventually(into.effects, lambda found: found[-1] == ("mm:model/credit-pd", "large"))


async def test_nothing_overtakes_a_batch_that_is_too_large(bare_installation: Installation) -> None:
    """A batch takes 256 KiB: the first ninety are too large together, the others, in a batch of their own, are not."""
    async with pair(bare_installation) as (out, into):
        await takes_no_more_than(bare_installation, 150_000, "binding.created")
        events = [large("credit-pd").model_copy(update={"consumer": f"{number}"}) for number in range(100)]
        await say(out, *events)
        effects = await eventually(into.effects, lambda found: len(found) == 100)
        assert [consumer for _, consumer in effects] == [f"{number}" for number in range(100)]


async def test_what_not_even_the_dead_letters_take_stays_in_the_outbox(bare_installation: Installation) -> None:
    async with pair(bare_installation) as (out, into):
        await takes_no_more_than(bare_installation, 2_500, "binding.created", "registry.dlq")
        await say(out, large("credit-pd"), binding("credit-pd", "first"))
        await say(out, binding("credit-pd", "second"))
        await eventually(into.effects, lambda found: [consumer for _, consumer in found] == ["first", "second"])
        assert await eventually(lambda: left(out), lambda found: len(found) == 1) == ["registry.dlq"]


async def left(side: Side) -> list[str]:
    """Topics of what is in the outbox."""
    async with side.database.begin(EVERY_WORKSPACE) as tx:
        return [row["topic"] for row in await tx.connection.fetch("SELECT topic FROM outbox ORDER BY id")]


async def test_two_relays_publish_every_event_once_and_one_takes_over(bare_installation: Installation) -> None:
    await bare_installation.make_topics("binding.created", "asset.changed", "policy.dlq", "registry.dlq")
    side = Side(bare_installation, "registry")
    await side.open()
    first, second = (Relay(side.database, bare_installation.kafka, "registry") for _ in range(2))
    tasks = [asyncio.create_task(first.run()), asyncio.create_task(second.run())]
    for number in range(20):
        await say(side, binding("credit-pd", f"a{number}"))

    async def published() -> list[BindingCreated]:
        return await bare_installation.events(BindingCreated)

    await eventually(published, lambda found: len(found) == 20)
    leader = tasks[0] if first._leading else tasks[1]
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    await say(side, binding("credit-pd", "after"))
    events = await eventually(published, lambda found: len(found) >= 21)
    assert [event.consumer for event in events] == [*(f"a{n}" for n in range(20)), "after"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await side.database.close()


async def test_the_trace_and_the_cause_travel(bare_installation: Installation) -> None:
    traces.start("test")
    async with pair(bare_installation) as (_, into):
        seen: list[Received[BindingCreated]] = []

        async def answer(tx: Transaction, received: Received[BindingCreated]) -> None:
            seen.append(received)
            tx.emit(
                AssetChanged(
                    urn=received.event.asset.urn,
                    change="alias",
                    name="x",
                    actor=received.event.actor,
                    at="2026-01-01T00:00:00Z",
                )
            )

        into.handle = answer  # type: ignore[method-assign]
        subscriber = Subscriber(
            Inbox(into.database, Consumer("second", (Route(BindingCreated, answer),)), "policy"),
            bare_installation.kafka,
        )
        await subscriber.start()
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        event_id = await bare_installation.publish(binding("credit-pd"), traceparent=parent)
        try:
            (record,) = await eventually(lambda: bare_installation.records("asset.changed"), bool)
        finally:
            await subscriber.stop()
        headers = dict(record.headers)
        assert headers["ce_causationid"].decode() == event_id
        assert headers["ce_correlationid"].decode() == event_id
        assert headers["traceparent"].decode().split("-")[1] == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("ended", ["_fetcher._fetch_task", "_coordinator._coordination_task"])
async def test_a_client_that_stands_still_is_replaced(
    bare_installation: Installation, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    """The client's background tasks end for good when something unexpected happens to them, and nobody is told."""
    monkeypatch.setattr(progress, "STALLED_S", 1.0)
    async with pair(bare_installation) as (out, into):
        await say(out, binding("before"))
        await eventually(into.effects, lambda found: len(found) == 1)
        client = into.subscriber._subscription.consumer
        task: asyncio.Task[None] = attrgetter(ended)(client)
        task.cancel()
        await asyncio.wait([task])
        said = ["before"]
        for name in ("asked-for", "after", "later"):
            await say(out, binding(name))
            said.append(name)
            effects = await eventually(into.effects, lambda found: len(found) == len(said))
        assert [urn for urn, _ in effects] == [f"mm:model/{name}" for name in said]
        assert into.subscriber._subscription.consumer is not client
