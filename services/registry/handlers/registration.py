"""Submissions: checked, and registered as a version or refused with a code; each is answered by one event.

- References are resolved when the submission is taken: a dataset or prompt must be registered by then. One that follows
  a moment later is `unknown-dataset` all the same; who submits both waits for the first answer.
- The same content of the same asset is one version. Who submits it again gets asset.registered for that version, with
  the new submission_id; tags and description of the later submission are dropped.
- The same submission again gets the same answer again; its id for anything else is refused as `submission-reused`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from services.registry.domain import assets, lineage
from services.registry.domain.assets import Asset, Content, Version
from services.registry.domain.lineage import Edge
from services.registry.errors import NameTaken, SubmissionReused, UnknownDataset, UnknownPrompt
from services.registry.handlers.artefacts import Artefacts
from services.registry.reuse.intents import Intents
from services.registry.reuse.wishes import wish_of
from services.registry.search import facts
from services.registry.search.index import Index
from services.registry.store import Store, Submission
from shared import strict_json
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Invalid, MintmarkError, Refused
from shared.events import cause
from shared.events.base import Actor, Urn
from shared.events.envelope import Envelope, Origin, Received
from shared.events.registry import AssetRefused
from shared.events.upstream import AssetSubmitted, DatasetVersion
from shared.identity.principal import Principal
from shared.ids import digest_of
from shared.telemetry import traces

_URN: TypeAdapter[str] = TypeAdapter(Urn)
VOUCHING_S = 30.0
"""How long a prompt without a proof waits for the prompts service to name its author."""


class Registration:
    """From asset.submitted (or the same by HTTP) to asset.registered or asset.refused."""

    def __init__(
        self,
        database: Database,
        store: Store,
        index: Index,
        artefacts: Artefacts,
        clock: Clock,
        *,
        require_proof: bool,
        intents: Intents,
    ) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._artefacts = artefacts
        self._clock = clock
        self._require_proof = require_proof
        self._intents = intents

    async def submitted(self, tx: Transaction, received: Received[AssetSubmitted]) -> None:
        """asset.submitted was heard."""
        event = received.event
        try:
            await self._take(tx, event, received.author, received.id)
        except (Invalid, SubmissionReused) as error:  # no submission that could be kept
            self._say_refused(tx, event, received.id, error.code, error.message)

    async def submit(self, caller: Principal, event: AssetSubmitted) -> Submission:
        """The same by HTTP; the author is the caller. Raises Invalid or SubmissionReused where nothing can be kept."""
        async with self._database.begin(caller.workspace) as tx:
            return await self.submit_in(tx, caller, event)

    async def submit_in(self, tx: Transaction, caller: Principal, event: AssetSubmitted) -> Submission:
        """The same in the transaction of whoever has more to do in it."""
        await self._take(tx, event, caller.actor, str(event.submission_id))
        submission = await self._store.submissions.one(tx, event.submission_id)
        assert submission is not None
        return submission

    async def refuse_invalid(self, tx: Transaction, envelope: Envelope, origin: Origin, error: MintmarkError) -> None:
        """What came on asset.submitted and is none: answered all the same, with as much of its name as can be read."""
        tx.emit(
            AssetRefused(
                submission_id=_submission_id(envelope.data),
                event_id=envelope.id,
                urn=_urn(envelope.subject),
                code=error.code,
                reason=error.message[:4000],
            )
        )

    async def _take(self, tx: Transaction, event: AssetSubmitted, proven: Actor, event_id: str) -> None:
        now, why = self._clock(), cause.current.get()
        request = _request(event, proven)
        awaited = False
        if event.kind == "prompt" and not proven.proven:
            # The prompts service has nobody's key to sign with; it names the author in prompt.published.
            await self._store.submissions.one_at_a_time(tx, event.submission_id)
            vouched = await self._store.submissions.vouched(tx, event.submission_id, event.name)
            proven = vouched[0] if vouched else proven
            awaited = vouched is None and event.author is not None
        submission = Submission(
            id=event.submission_id,
            event_id=event_id,
            request=request,
            event=event,
            author=proven,
            state="vouching" if awaited else "fetching",
            received_at=now,
            correlation_id=why.correlation_id,
            causation_id=why.causation_id,
            traceparent=traces.traceparent(),
        )
        due_at = now + timedelta(seconds=VOUCHING_S) if awaited else now
        if not await self._store.submissions.add(tx, submission, due_at):
            await self._taken_before(tx, submission)
            return
        try:
            assets.check_form(event)
            if not awaited:
                assets.author_of(event.author, proven, require_proof=self._require_proof)
                await self._resolved(tx, event, None)
            await self.decided_to_build(tx, event)
            materials = assets.materials(event)
            if await self._artefacts.ready_at_once(materials) and not awaited:
                await self.conclude(tx, submission, await self._artefacts.check(materials))
        except Refused as error:
            await self.refuse(tx, submission, error)

    async def decided_to_build(self, tx: Transaction, event: AssetSubmitted) -> None:
        """Raises IntentRequired for a model's first version, where the workspace wants an intent and none decided."""
        if event.kind != "model":
            return
        asset = await self._store.versions.asset(tx, event.urn)
        if asset is None or asset.last_version == 0:
            what = f"{event.urn} is new"
            await self._intents.require(tx, what, event.kind, event.training.intent_id, wish_of(event))

    async def conclude(self, tx: Transaction, submission: Submission, sizes: dict[str, int]) -> None:
        """Register what was submitted, or refuse it. Its bytes are here and checked; `sizes` are theirs by digest."""
        event = submission.event
        try:
            assets.author_of(event.author, submission.author, require_proof=self._require_proof)
            await self._artefacts.claim(tx, sizes)
            artefact_size = sizes[event.artefact.digest] if event.artefact else None
            content = await self._resolved(tx, event, artefact_size)
        except Refused as error:
            await self.refuse(tx, submission, error)
            return
        now = self._clock()
        try:
            asset = await self._held(tx, event, now)
        except Refused as error:
            await self.refuse(tx, submission, error)
            return
        version = await self._store.versions.with_digest(tx, event.urn, content.digest)
        if version is None:
            version = await self._register(tx, submission, asset.title, content, sizes)
        await self._store.submissions.decide(tx, submission.id, "registered", now, version=version.ref.version)
        tx.emit(version.registered(submission.id))

    async def _held(self, tx: Transaction, event: AssetSubmitted, now: datetime) -> Asset:
        """The submission's asset, held and made if need be. Raises NameTaken.

        A unique index would end the transaction, and the refusal with it; so a title is looked up first.
        """
        if event.title is not None:
            called = await self._store.versions.called(tx, event.title, [event.kind])
            if called is not None and called.urn != event.urn:
                raise NameTaken(f"{called.urn} is called {event.title[:200]!r} already")
        asset = await self._store.versions.lock_asset(tx, event.urn, event.title or event.name, now)
        if event.title is not None and asset.title != event.title:
            raise NameTaken(f"{asset.urn} is called {asset.title[:200]!r}, not {event.title[:200]!r}")
        return asset

    async def _register(
        self, tx: Transaction, submission: Submission, title: str, content: Content, sizes: dict[str, int]
    ) -> Version:
        """The next version of an asset that is held, with its terms and its lineage."""
        event, now = submission.event, self._clock()
        draft = content.draft(submission.author, now)
        version = await self._store.versions.add(tx, draft, title)
        await self._index.add(tx, version.number, facts.found_in(draft, title), version.ref.version)
        await self._store.versions.hold_artefacts(tx, list(sizes.items()), now)
        edges = [*lineage.of_version(version)]
        if event.training.intent_id is not None:
            edges.append(Edge(f"intent:{event.training.intent_id}", "AssociatedWith", str(version.ref)))
        if event.artefact is not None:
            twins = await self._store.versions.twins(tx, event.urn, event.artefact.digest)
            edges += [Edge(f"{urn}@{number}", "SameAs", str(version.ref)) for urn, number in twins]
        if event.kind == "prompt":
            vouched = await self._store.submissions.vouched(tx, event.submission_id, event.name)
            edges += [Edge(f"prompt:{event.name}@{vouched[1]}", "SameAs", str(version.ref))] if vouched else []
        await self._store.graph.link(tx, edges, now, submission.event_id)
        await self._store.graph.link_bases(tx, version, now, submission.event_id)
        await self._store.datasets.registered(tx, version)
        if event.kind == "dataset":
            tx.emit(version.dataset_registered())
        return version

    async def _taken_before(self, tx: Transaction, submission: Submission) -> None:
        """The same request again gets the same answer again; another one under its id is refused."""
        before = await self._store.submissions.one(tx, submission.id, lock=True)
        assert before is not None
        if before.request != submission.request:
            raise SubmissionReused(f"submission_id {submission.id} was used for something else before; take a new one")
        if before.state == "registered" and before.version is not None:
            version = await self._store.versions.one(tx, before.event.urn, before.version)
            assert version is not None
            tx.emit(version.registered(before.id))
        elif before.state == "refused":
            self._say_refused(
                tx, before.event, submission.event_id, before.code or "refused", before.reason or "refused before"
            )

    async def refuse(self, tx: Transaction, submission: Submission, error: MintmarkError) -> None:
        """Nothing is registered, and whoever waits is told why."""
        await self._store.submissions.decide(
            tx, submission.id, "refused", self._clock(), code=error.code, reason=error.message
        )
        self._say_refused(tx, submission.event, submission.event_id, error.code, error.message)

    def _say_refused(self, tx: Transaction, event: AssetSubmitted, event_id: str, code: str, reason: str) -> None:
        tx.emit(
            AssetRefused(
                submission_id=event.submission_id, event_id=event_id, urn=event.urn, code=code, reason=reason[:4000]
            )
        )

    async def _resolved(self, tx: Transaction, event: AssetSubmitted, artefact_size: int | None) -> Content:
        """The content with every reference resolved. Raises UnknownDataset, UnknownPrompt or GoldenLocked."""
        for prompt in event.prompts:
            version = await self._store.versions.one(tx, prompt.urn, prompt.version)
            if version is None or version.ref.digest != prompt.digest:
                raise UnknownPrompt(
                    f"{prompt} with {prompt.digest} is not registered here; publish it first, then submit again"
                )
        resolved = {"dataset": await self._dataset(tx, event.training.dataset), "intent_id": None}
        training = event.training.model_copy(update=resolved)
        await self._store.datasets.check_training(tx, training)
        return Content(event, await self._dataset(tx, event.golden_set), training, artefact_size)

    async def _dataset(self, tx: Transaction, named: DatasetVersion | None) -> DatasetVersion | None:
        if named is None:
            return None
        version = (
            await self._store.versions.one(tx, named.urn, named.version)
            if named.urn.startswith("mm:dataset/")
            else None
        )
        if version is None:
            raise UnknownDataset(
                f"dataset {named.urn}@{named.version} is not registered here; register it first, then submit again"
            )
        if named.digest is not None and named.digest != version.ref.digest:
            raise UnknownDataset(f"dataset {version.ref} has digest {version.ref.digest}, not {named.digest}")
        return DatasetVersion(urn=named.urn, version=named.version, digest=version.ref.digest)


def _request(event: AssetSubmitted, proven: Actor) -> str:
    """What was asked and by whom, as a digest. Raises Invalid for a value that canonical JSON cannot hold."""
    try:
        return digest_of([event.model_dump(mode="json"), proven.id, proven.proven])
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the submission holds a value that canonical JSON (RFC 8785) has no form for: {error}") from None


def _submission_id(data: bytes) -> UUID | None:
    try:
        document = strict_json.loads(data)
        return UUID(document["submission_id"])
    except (MintmarkError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _urn(text: str) -> str | None:
    try:
        return _URN.validate_python(text)
    except ValidationError:
        return None
