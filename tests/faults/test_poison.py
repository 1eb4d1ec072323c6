"""Events that no handler can digest, among good ones: the neighbours hardly wait, and a replay works once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from random import Random

import pytest

from shared.events.upstream import FeedbackReceived
from shared.ids import new_id
from shared.testing.installation import Installation, eventually
from tests.faults import invariants
from tests.faults.stories.router import RouterStory
from tests.faults.world import World
from tests.integration.router_story import named

pytestmark = pytest.mark.timeout(120)
POISON = 250
GOOD = 40


async def test_poison_is_buried_and_its_neighbours_do_not_wait(installation: Installation) -> None:
    world = await World(installation, "router").open()
    story = RouterStory(world, Random(1))
    try:
        await story.prepare()
        await world.start()
        await story.step(0)  # makes group-0
        await invariants.hold(world, story.complaints)

        remarks = [said(f"nobody-{number}", "poison") for number in range(POISON)]
        remarks += [said("group-0", f"good {number}") for number in range(GOOD)]
        Random(1).shuffle(remarks)
        sent = {}
        for remark in remarks:
            sent[str(remark.value)] = datetime.now(UTC)
            await installation.publish(remark)

        async def good() -> dict[str, datetime]:
            rows = await world.rows("SELECT label, received_at FROM feedback WHERE label LIKE 'good %'")
            return {row["label"]: row["received_at"] for row in rows}

        received = await eventually(good, lambda found: len(found) == GOOD)
        waited = sorted((at - sent[label]).total_seconds() for label, at in received.items())
        print(
            f"{POISON} of {POISON + GOOD} are poison: neighbours waited {waited[GOOD // 2]:.2f} to {waited[-1]:.2f} s"
        )

        async def letters() -> list[dict[str, str]]:
            found: list[dict[str, str]] = await world.get("/router/v1/dead-letters")
            return found

        dead = await eventually(letters, lambda found: len(found) == POISON)
        assert {letter["key"] for letter in dead} == {f"mm:group/nobody-{number}" for number in range(POISON)}
        assert {(letter["code"], letter["attempts"], letter["topic"]) for letter in dead} == {
            ("unknown-group", 5, "feedback.received")
        }
        # Five attempts take 3.75 s at least. Who waits for the poison before it is received after that is buried; a
        # consumer that stood still for so long, on a busy machine, is no fault.
        buried = {letter["key"].rpartition("/")[2]: datetime.fromisoformat(letter["at"]) for letter in dead}
        before, waited_for = "", 0
        for name, label in ((remark.group, str(remark.value)) for remark in remarks):
            if name in buried:
                before = name
            elif before:
                waited_for += received[label] > buried[before]
        assert waited_for < GOOD // 4, f"{waited_for} of {GOOD} waited until the poison before them was buried"
        left = await world.rows(
            "SELECT (SELECT count(*) FROM parked) AS parked, (SELECT count(*) FROM outbox) AS outbox"
        )
        assert dict(left[0]) == {"parked": 0, "outbox": 0}

        # The cause goes away: now it can be handled, however often it is replayed, once.
        body = {"name": "nobody-7", "champion": named(story.versions[0])}
        await world.post("/router/v1/groups", body)
        (letter,) = [letter for letter in dead if letter["key"] == "mm:group/nobody-7"]
        for _ in range(3):
            await world.post(f"/router/v1/dead-letters/{letter['position']}:replay", {})

        async def replayed() -> int:
            (row,) = await world.rows("SELECT count(*) AS count FROM feedback WHERE group_name = 'nobody-7'")
            return int(row["count"])

        await eventually(replayed, lambda count: count == 1)
        await installation.publish(said("group-0", "the last"))
        await eventually(lambda: has(world, "the last"), bool)
        await asyncio.sleep(0.5)
        assert await replayed() == 1
        assert len(await letters()) == POISON
    finally:
        await world.close()


def said(group: str, value: str) -> FeedbackReceived:
    now = datetime.now(UTC)
    return FeedbackReceived(group=group, request_id=new_id(), metric="note", value=value, observed_at=now)


async def has(world: World, label: str) -> bool:
    return bool(await world.rows("SELECT 1 FROM feedback WHERE label = $1", label))
