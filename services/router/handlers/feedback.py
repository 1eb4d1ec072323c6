"""Feedback: what became known about a request afterwards, from HTTP or from Kafka, each word once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from services.router.comparison.aggregates import LARGEST
from services.router.domain import label_text
from services.router.errors import FeedbackRefused, UnknownGroup
from services.router.store import Store, Word
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import SignatureRefused
from shared.events.base import Actor
from shared.events.envelope import Received
from shared.events.upstream import FeedbackReceived
from shared.ids import new_id

OWN_SOURCE = "mintmark/router"
LABEL = "label"
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Remark:
    """What a caller says about a request."""

    request_id: UUID
    metric: str
    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Taken:
    """`unmatched` words are of requests without a row: kept all the same, since the row may be on its way."""

    received: int
    unmatched: int


class Feedback:
    """With `require_proof`, words on Kafka count only from proven authors."""

    def __init__(self, database: Database, store: Store, clock: Clock, *, require_proof: bool) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._require_proof = require_proof

    async def give(self, workspace: str, actor: Actor, group: str, remarks: Sequence[Remark]) -> Taken:
        """All of them or none. Raises UnknownGroup, FeedbackRefused."""
        words = [word(new_id(), remark.request_id, remark.metric, remark.value) for remark in remarks]
        async with self._database.begin(workspace) as tx:
            await self._require_group(tx, group)
            now = self._clock()
            await self._store.add_feedback(tx, group, actor.id, words, now)
            for said, remark in zip(words, remarks, strict=True):
                event = FeedbackReceived(
                    group=group,
                    request_id=remark.request_id,
                    metric=remark.metric,
                    value=remark.value,
                    observed_at=now,
                )
                tx.emit(event, event_id=str(said.id))
            requests = {said.request_id for said in words}
            known = await self._store.known_requests(tx, group, requests)
            return Taken(len(words), len(requests) - known)

    async def received(self, tx: Transaction, received: Received[FeedbackReceived]) -> None:
        """A word from outside. Our own come back here too: they were kept before they were said, and may be gone.

        Raises UnknownGroup, FeedbackRefused, SignatureRefused, which end among the dead letters.
        """
        if received.envelope.source == OWN_SOURCE:
            return
        event = received.event
        if self._require_proof and not received.author.proven:
            raise SignatureRefused("the feedback's author is not proven; sign it with an API key")
        await self._require_group(tx, event.group)
        said = word(_id_of(received), event.request_id, event.metric, event.value)
        await self._store.add_feedback(tx, event.group, received.author.id, [said], self._clock())

    async def _require_group(self, tx: Transaction, group: str) -> None:
        if await self._store.group(tx, group) is None:
            raise UnknownGroup(group)


def word(word_id: UUID, request_id: UUID, metric: str, value: Any) -> Word:
    """A label in its one spelling; of other metrics the number or the text. Raises FeedbackRefused."""
    if not isinstance(value, bool | int | float | str):
        raise FeedbackRefused()
    if isinstance(value, str) and (not 1 <= len(value) <= MAX_TEXT or "\x00" in value):
        raise FeedbackRefused(f"The text for {metric!r} must have 1 to {MAX_TEXT} characters and no NUL.")
    try:
        number = None if isinstance(value, str) else float(value)
    except OverflowError:
        raise FeedbackRefused(f"The number for {metric!r} is too large.") from None
    is_text = metric == LABEL or number is None
    if not is_text and number is not None and abs(number) > LARGEST:
        raise FeedbackRefused(f"The number for {metric!r} is too large; {LARGEST:g} is the most.")
    return Word(word_id, request_id, metric, number, label_text(value) if is_text else None)


def _id_of(received: Received[FeedbackReceived]) -> UUID:
    """Others' ids are any text, unique with their source."""
    envelope = received.envelope
    return uuid5(NAMESPACE_URL, "\x1f".join((envelope.workspace, envelope.source, envelope.id)))
