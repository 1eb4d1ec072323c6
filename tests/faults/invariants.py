"""What must hold of a service after any fault: nothing lost, nothing twice, nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

from shared.events import dead_letters
from shared.testing.installation import WITHIN_S
from tests.faults.world import World

Complaints = Callable[[], Awaitable[list[str]]]
SETTLE_S = 0.5


async def hold(world: World, *more: Complaints) -> float:
    """Wait until nobody complains, then look once more; returns the seconds it took, raises with all complaints."""
    began = time.monotonic()
    while True:
        found = await complaints(world, *more)
        if not found:
            took = time.monotonic() - began
            await asyncio.sleep(SETTLE_S)
            found = await complaints(world, *more)
            if not found:
                return took
        if time.monotonic() - began > WITHIN_S:
            logs = "\n".join(process.log for process in world.processes[-1:])
            raise AssertionError(f"after {WITHIN_S:.0f} s:\n  " + "\n  ".join(found[:40]) + f"\n{logs}")
        await asyncio.sleep(0.25)


async def complaints(world: World, *more: Complaints) -> list[str]:
    """What does not hold (yet); the cheap questions first, since most of the time something is still on its way."""
    found = [*await world.outstanding(), *await nothing_left_behind(world)]
    if found:
        return found
    await world.tape.play()
    found = [*await everything_heard(world), *await everything_said(world), *buried(world)]
    for one in more:
        found += await one()
    return found


async def nothing_left_behind(world: World) -> list[str]:
    """An empty outbox, nothing parked, nothing dead."""
    (row,) = await world.rows(
        "SELECT (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM parked) AS parked,"
        " (SELECT count(*) FROM inbox WHERE outcome <> 'handled') AS unhandled"
    )
    return [f"{name}: {count} rows" for name, count in row.items() if count]


async def everything_heard(world: World) -> list[str]:
    """Every event on a topic that the service hears stands in its inbox, as handled, and no other does."""
    found = []
    for consumer in world.consumers():
        said = {
            (said.envelope.source, said.envelope.id)
            for said in world.tape.said
            if said.topic in consumer.topics and said.envelope is not None
        }
        rows = await world.rows("SELECT source, event_id FROM inbox WHERE consumer = $1", consumer.name)
        heard = {(row["source"], row["event_id"]) for row in rows if row["source"] != "unknown"}
        found += [f"{consumer.name} did not hear {event}" for event in said - heard]
        found += [f"{consumer.name} heard {event}, which is not on Kafka" for event in heard - said]
    return found


async def everything_said(world: World) -> list[str]:
    """All that was committed to the outbox came to Kafka: an aggregate's numbers in order, without gap, one event each.

    What is there twice is the same event, byte by byte.
    """
    numbers: dict[tuple[str, str, str], dict[int, str]] = defaultdict(dict)
    bodies: dict[str, bytes] = {}
    found = []
    for said in world.tape.said:
        envelope = said.envelope
        if envelope is None or envelope.source != f"mintmark/{world.service}" or envelope.sequence is None:
            continue
        if bodies.setdefault(envelope.id, envelope.data) != envelope.data:
            found.append(f"two events have the id {envelope.id}")
        of_key = numbers[envelope.workspace, said.topic, envelope.subject]
        if envelope.sequence not in of_key and envelope.sequence != len(of_key) + 1:
            found.append(f"{said.topic} {envelope.subject}: number {envelope.sequence} came after {len(of_key)}")
        if of_key.setdefault(envelope.sequence, envelope.id) != envelope.id:
            found.append(f"{said.topic} {envelope.subject}: two events have number {envelope.sequence}")
    for row in await world.rows("SELECT workspace, topic, key, last FROM outbox_sequence"):
        came = len(numbers[row["workspace"], row["topic"], row["key"]])
        if came != row["last"]:
            found.append(f"{row['topic']} {row['key']}: {row['last']} were said, {came} came to Kafka")
    return found


def buried(world: World) -> list[str]:
    """No dead letters."""
    topic = dead_letters(world.service).name
    return [
        f"dead letter: {dict(said.record.headers).get('mintmark-dlq-error')!r}"
        for said in world.tape.said
        if said.topic == topic
    ]
