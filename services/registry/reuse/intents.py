"""Intents: described, answered with what is there, and ended by reuse or by a build that says why nothing fits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.registry.errors import IntentDecided, IntentExpired, IntentRequired, WhyNotMissing
from services.registry.reuse.bindings import Bindings
from services.registry.reuse.looking import Looking
from services.registry.reuse.store import Binding, Intent, Outcome, Place, Reuse
from services.registry.reuse.wishes import INTENT_TAG, Wish, wish_of_training
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Invalid, NotFound
from shared.events.envelope import Received
from shared.events.registry import AssetRefused
from shared.events.upstream import TrainingRequested
from shared.identity.principal import Principal
from shared.ids import new_id

LASTS = timedelta(days=90)
MUST_EXPLAIN = 3
"""Of so many of the first candidates a builder says why they do not fit; nobody reads ten such sentences."""
NAMED = 3


class Intents:
    """One team's wish from its description to its outcome."""

    def __init__(
        self, database: Database, store: Store, reuse: Reuse, looking: Looking, bindings: Bindings, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._reuse = reuse
        self._looking = looking
        self._bindings = bindings
        self._clock = clock

    async def describe(self, caller: Principal, wish: Wish) -> Intent:
        """Keep what a team wants, with what is there already."""
        async with self._database.begin(caller.workspace) as tx:
            now = self._clock()
            candidates = tuple(await self._looking.look(tx, wish))
            intent = Intent(new_id(), wish, candidates, caller.actor, now, now + LASTS)
            await self._reuse.add_intent(tx, intent)
        return intent

    async def one(self, caller: Principal, intent_id: UUID) -> Intent:
        """Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._one(tx, intent_id)

    async def listed(self, caller: Principal, team: str | None, below: Place, most: int) -> list[Intent]:
        """Newest first."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._reuse.intents(tx, team, below, most)

    async def reuse(
        self, caller: Principal, intent_id: UUID, urn: str, version: int, consumer: str, reason: str
    ) -> tuple[Intent, Binding]:
        """It ends with a version that is there. Any version may be taken, whether it was shown or not."""
        async with self._database.begin(caller.workspace) as tx:
            intent = await self._open(tx, intent_id)
            binding = await self._bindings.bind(tx, caller.actor, urn, version, consumer, reason, intent_id)
            outcome = Outcome("reuse", binding.id, {}, reason, caller.actor, self._clock())
            await self._reuse.decide(tx, intent_id, outcome)
            return await self._one(tx, intent.id), binding

    async def build(self, caller: Principal, intent_id: UUID, why_not: Mapping[str, str], reason: str) -> Intent:
        """It ends with something new. Raises WhyNotMissing where one of the first candidates is passed over."""
        async with self._database.begin(caller.workspace) as tx:
            intent = await self._open(tx, intent_id)
            shown = [candidate.node for candidate in intent.candidates]
            unknown = sorted(set(why_not) - set(shown))
            if unknown:
                raise Invalid(f"why_not speaks of {', '.join(unknown[:5])[:500]}, which this intent was not shown")
            missing = [node for node in shown[:MUST_EXPLAIN] if not why_not.get(node, "").strip()]
            if missing:
                raise WhyNotMissing(f"say of {', '.join(missing)} why it does not fit", missing=missing)
            outcome = Outcome("build", None, dict(why_not), reason, caller.actor, self._clock())
            await self._reuse.decide(tx, intent_id, outcome)
            return await self._one(tx, intent_id)

    async def training_requested(self, tx: Transaction, received: Received[TrainingRequested]) -> None:
        """Refused like a submission where the workspace wants an intent to build and none is named."""
        event = received.event
        urn = f"mm:model/{event.name}"
        wish = wish_of_training(event)
        try:
            await self.require(tx, f"{urn} is to be trained", "model", event.intent_id, wish)
        except IntentRequired as error:
            tx.emit(AssetRefused(event_id=received.id, urn=urn, code=error.code, reason=error.message[:4000]))

    async def require(self, tx: Transaction, what: str, kind: str, intent_id: UUID | None, wish: Wish) -> None:
        """Raises IntentRequired, with the nearest assets, where the workspace wants an intent and none allows it."""
        if not (await self._store.pointers.protection(tx)).intents:
            return
        wrong = await self._wrong_with(tx, kind, intent_id)
        if wrong is None:
            return
        near = (await self._looking.look(tx, wish, NAMED))[:NAMED]
        there = "; the nearest that is there: " + ", ".join(
            f"{one.node} ({one.title}, {one.stage}, score {one.score:.2f})"
            + (f" [against it: {one.excluded_by[0]}]" if one.excluded_by else "")
            for one in near
        )
        raise IntentRequired(
            f"{what}, and {wrong}: POST /registry/v1/intents, look at its answer, and name the intent "
            f"(intent_id; in MLflow the tag {INTENT_TAG}){there if near else '; nothing like it is there yet'}"
        )

    async def _wrong_with(self, tx: Transaction, kind: str, intent_id: UUID | None) -> str | None:
        """Why an intent does not let something of a kind be built; None where it does."""
        if intent_id is None:
            return "no intent is named"
        intent = await self._reuse.intent(tx, intent_id)
        if intent is None:
            return f"there is no intent {intent_id} in this workspace"
        if intent.outcome is None:
            return f"intent {intent_id} has no outcome yet"
        if intent.outcome.outcome != "build":
            return f"intent {intent_id} ended with reuse"
        if intent.expires_at <= self._clock():
            return f"intent {intent_id} expired at {intent.expires_at.isoformat()}"
        if intent.wish.kind != kind:
            return f"intent {intent_id} is about a {intent.wish.kind}, not a {kind}"
        return None

    async def figures(self, caller: Principal, since: datetime, until: datetime) -> dict[str, Any]:
        """The reuse rate over a period: of the intents that ended, the share that ended with reuse."""
        async with self._database.begin(caller.workspace) as tx:
            rows = await self._reuse.figures(tx, since, until)
            most = await self._reuse.reused_most(tx, since, until, 20)
        return {
            **_total(rows),
            "by_task": _by(rows, "task"),
            "by_team": _by(rows, "team"),
            "most_reused": most,
        }

    async def _open(self, tx: Transaction, intent_id: UUID) -> Intent:
        intent = await self._reuse.intent(tx, intent_id, hold=True)
        if intent is None:
            raise NotFound(f"there is no intent {intent_id}")
        if intent.outcome is not None:
            raise IntentDecided(f"intent {intent_id} ended with {intent.outcome.outcome}; describe another one")
        if intent.expires_at <= self._clock():
            raise IntentExpired(f"intent {intent_id} expired at {intent.expires_at.isoformat()}; describe it again")
        return intent

    async def _one(self, tx: Transaction, intent_id: UUID) -> Intent:
        intent = await self._reuse.intent(tx, intent_id)
        if intent is None:
            raise NotFound(f"there is no intent {intent_id}")
        return intent


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {name: sum(row[name] for row in rows) for name in ("intents", "reused", "built", "open")}
    ended = counts["reused"] + counts["built"]
    return {**counts, "rate": round(counts["reused"] / ended, 4) if ended else None}


def _by(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    keys = dict.fromkeys(row[name] for row in rows)
    found = [{name: key, **_total([row for row in rows if row[name] == key])} for key in keys]
    return sorted(found, key=lambda row: -row["intents"])
