"""A story: the inputs of one service, as many as are wanted, and what each of them must lead to exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import ClassVar
from uuid import uuid4

from shared.events.base import Actor, Event
from tests.faults.world import World

ADA = Actor(id="user:ada", proven=True)
AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
NAMES = 4  # aggregates that the inputs are spread over
INBOX = ("inbox.claimed", "inbox.committed", "inbox.flushed")
RELAY = ("relay.fetched", "relay.published")


@dataclass(frozen=True, slots=True)
class Letter:
    """An event on its way."""

    event: Event
    signed: bool
    id: str


class Story:
    """Inputs come by number, from 0, without end; `rng` makes those choices that no outcome depends on."""

    service: ClassVar[str]
    points: ClassVar[tuple[str, ...]]
    """Where this service can be made to die while the story goes on."""
    deepest: ClassVar[int] = 6
    """A case dies at the latest when it passes its point for this many times."""
    inputs: ClassVar[int] = 12
    """How many come fast; then one comes each `pause_s`, until the service is dead."""
    pause_s: ClassVar[float] = 0.5

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.mail: Callable[[Letter], None] | None = None
        """Where events go instead of straight to Kafka, for a test that delivers them itself."""

    async def prepare(self) -> None:
        """Before the service starts: environment, artefacts, what it must know."""

    async def step(self, number: int) -> None:
        """One input more."""
        raise NotImplementedError

    async def complaints(self) -> list[str]:
        """Which inputs are not answered, or not as they should be. The tape has been played."""
        raise NotImplementedError

    async def close(self) -> None:
        """End what the story itself has started."""

    async def publish(self, event: Event, *, signed: bool = False) -> None:
        letter = Letter(event, signed, str(uuid4()))
        if self.mail is not None:
            self.mail(letter)
        else:
            await self.deliver(letter)

    async def deliver(self, letter: Letter) -> None:
        key = self.world.key if letter.signed else None
        await self.world.installation.publish(letter.event, key=key, event_id=letter.id)


def once_each(what: str, wanted: Iterable[object], found: Iterable[object]) -> list[str]:
    """Complaints unless `found` holds each of `wanted` exactly once and nothing else."""
    counted, asked = Counter(map(str, found)), {str(one) for one in wanted}
    return [
        *(f"{what}: {one} is missing" for one in sorted(asked - counted.keys())),
        *(f"{what}: {one} was not asked for" for one in sorted(counted.keys() - asked)),
        *(f"{what}: {one} is there {count} times" for one, count in counted.items() if count > 1),
    ]
