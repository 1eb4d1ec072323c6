"""What a service could not handle, over HTTP: list, inspect, replay. Only the caller's own workspace is shown."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel

from shared import strict_json
from shared.bus import dead_letters
from shared.bus.dead_letters import DeadLetter
from shared.bus.transport import KafkaSettings
from shared.errors import MintmarkError, NotFound, TooLarge
from shared.events.envelope import DEFAULT_WORKSPACE
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal


class Summary(BaseModel):
    """One dead letter; `position` names it."""

    position: str
    type: str
    key: str
    topic: str
    consumer: str
    code: str
    error: str
    attempts: int
    at: str


class Detail(Summary):
    """With everything needed to understand it."""

    headers: dict[str, str]
    data: Any


def router(service: str, kafka: KafkaSettings) -> APIRouter:
    """`/<service>/v1/dead-letters`."""
    made = APIRouter(prefix=f"/{service}/v1/dead-letters", route_class=StrictRoute, tags=["dead letters"])

    async def find(caller: Principal, position: str) -> DeadLetter:
        for letter in await _of(caller):
            if letter.position == position:
                return letter
        raise NotFound(f"{service} has no dead letter {position[:40]!r}")

    async def _of(caller: Principal) -> list[DeadLetter]:
        return [
            letter
            for letter in await dead_letters.listed(kafka, service)
            if letter.headers.get("ce_workspace", DEFAULT_WORKSPACE) == caller.workspace
        ]

    @made.get("")
    async def listed(caller: Annotated[Principal, require("operate", "dead-letter")]) -> list[Summary]:
        """Dead letters of this service, oldest first."""
        return [Summary(**_summary(letter)) for letter in await _of(caller)]

    @made.get("/{position}")
    async def shown(position: str, caller: Annotated[Principal, require("operate", "dead-letter")]) -> Detail:
        """One dead letter with its headers and data."""
        letter = await find(caller, position)
        try:
            data = strict_json.loads(letter.value)
        except MintmarkError:
            data = letter.value.decode("utf-8", "replace")
        return Detail(**_summary(letter), headers=letter.headers, data=data)

    @made.post("/{position}:replay", status_code=202)
    async def replayed(position: str, caller: Annotated[Principal, require("operate", "dead-letter")]) -> Summary:
        """Put the original back on its topic. Only the consumer that gave up on it will handle it, and only once.

        One that no consumer has seen, as Kafka found it too large, goes to all of them.
        """
        letter = await find(caller, position)
        producer = kafka.producer(f"mintmark-{service}-replay")
        await producer.start()
        try:
            await dead_letters.replay(kafka, letter, producer)
        except dead_letters.TOO_LARGE:
            size, topic = len(letter.value), letter.story("topic")
            raise TooLarge(f"{topic} still takes no record of {size} bytes; raise its max.message.bytes") from None
        finally:
            await producer.stop()
        return Summary(**_summary(letter))

    return made


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "position": letter.position,
        "type": letter.headers.get("ce_type", ""),
        "key": letter.key,
        "topic": letter.story("topic"),
        "consumer": letter.story("consumer"),
        "code": letter.story("error-code"),
        "error": letter.story("error"),
        "attempts": int(letter.story("attempts") or 0),
        "at": letter.story("at"),
    }
