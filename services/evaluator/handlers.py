"""The evaluator's use cases: note what there is to measure, say what came of it, show how far it is."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID

from services.evaluator.domain import Finished
from services.evaluator.errors import EvaluationError, GatewayNotSet
from services.evaluator.settings import Settings
from services.evaluator.store import Asset, Evaluation, Store
from services.evaluator.templates import prompt_template
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Early, MintmarkError, NotFound
from shared.events.base import AssetRef, Interval
from shared.events.envelope import Received
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import DatasetApproved
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetVersion, EvalRequested
from shared.identity.principal import Principal
from shared.ids import new_id

PROMPT_TEMPLATE = "question-answering"
TEMPLATES = {"classification": "tabular-classification", "regression": "tabular-regression"}
MEASURED_KINDS = ("model", "prompt")


class Handlers:
    """One transaction each."""

    def __init__(self, database: Database, store: Store, settings: Settings, clock: Clock) -> None:
        self.database = database
        self.store = store
        self.settings = settings
        self.clock = clock
        self.waiting = asyncio.Event()
        """Set when there may be work; workers of this process wake by it."""

    async def know_dataset(self, tx: Transaction, received: Received[DatasetRegistered]) -> None:
        """A dataset version exists."""
        await self.store.know_dataset(tx, received.event)

    async def dataset_decided(self, tx: Transaction, received: Received[DatasetApproved]) -> None:
        """A dataset version may (not) be used: what waits for it can go on."""
        ref = received.event.asset
        if await self.store.dataset(tx, ref.urn, ref.version) is None:
            raise Early(f"dataset {ref} is not known here yet")
        await self.store.decide_dataset(tx, ref, received.event.decision)
        self.waiting.set()

    async def asset_registered(self, tx: Transaction, received: Received[AssetRegistered]) -> None:
        """A version exists; a model is measured on its golden set at once, a prompt when somebody asks."""
        event = received.event
        if event.kind not in MEASURED_KINDS:
            return
        if not await self.store.know_asset(tx, event):
            return  # submitted again: the version and what was measured of it are the same
        if event.kind == "prompt":
            return
        golden, template = event.golden_set, TEMPLATES.get(event.task or "")
        if golden is None or template is None:
            why = "it names no golden set" if golden is None else f"no template measures the task {event.task!r}"
            self._failed(tx, new_id(), event.asset, "not-measurable", f"{event.asset} cannot be measured: {why}")
            return
        await self._ask(tx, new_id(), event.asset, golden, template)

    async def requested(self, tx: Transaction, received: Received[EvalRequested]) -> None:
        """Somebody wants a version measured, again or on another golden set."""
        event = received.event
        kind = event.asset.urn.removeprefix("mm:").partition("/")[0]
        if kind not in MEASURED_KINDS:
            why = f"no template measures a {kind}; {', '.join(MEASURED_KINDS)} is measured"
            self._failed(
                tx, event.request_id, event.asset, "not-measurable", f"{event.asset} cannot be measured: {why}"
            )
            return
        asset = await self.store.asset(tx, event.asset.urn, event.asset.version)
        if asset is None:
            raise Early(f"{event.asset} is not known here yet")
        if asset.ref != event.asset:
            self._failed(tx, event.request_id, asset.ref, "wrong-digest", f"{asset.ref} has digest {asset.ref.digest}")
            return
        golden = event.golden_set
        if golden is None:
            own = await self.store.golden_set_of(tx, asset.ref.urn, asset.ref.version)
            if own is None:
                self._failed(tx, event.request_id, asset.ref, "not-measurable", f"{asset.ref} names no golden set")
                return
            golden = DatasetVersion(urn=own[0], version=own[1])
        try:
            model = self._answering(tx, asset, event.template, event.model)
        except EvaluationError as error:
            self._failed(tx, event.request_id, asset.ref, error.code, error.message)
            return
        await self._ask(tx, event.request_id, asset.ref, golden, event.template, model)

    def _answering(self, tx: Transaction, asset: Asset, template: str, model: str | None) -> str | None:
        """The group that answers where a prompt is measured, else None. Raises GatewayNotSet or TemplateUnknown."""
        if asset.kind != "prompt":
            return None
        prompt_template(template)
        if not self.settings.gateway_url:
            raise GatewayNotSet(
                "prompts are measured by a model behind the gateway, and no gateway is set: set "
                "MINTMARK_EVALUATOR_GATEWAY_URL and MINTMARK_EVALUATOR_GATEWAY_KEY of the evaluator"
            )
        if tx.workspace != self.settings.gateway_workspace:
            raise GatewayNotSet(
                "the evaluator's gateway key belongs to another workspace, and golden rows of this one would go there: "
                "set MINTMARK_EVALUATOR_GATEWAY_WORKSPACE and MINTMARK_EVALUATOR_GATEWAY_KEY to this workspace's"
            )
        chosen = model or self.settings.answers_group
        if not chosen:
            raise GatewayNotSet(
                "no group is named that answers: name one as `model` in the request, or set "
                "MINTMARK_EVALUATOR_ANSWERS_GROUP of the evaluator"
            )
        return chosen

    async def _ask(
        self,
        tx: Transaction,
        evaluation_id: UUID,
        ref: AssetRef,
        golden: DatasetVersion,
        template: str,
        model: str | None = None,
    ) -> None:
        if await self.store.dataset(tx, golden.urn, golden.version) is None:
            raise Early(f"golden set {golden.urn}@{golden.version} is not known here yet")
        await self.store.ask(tx, evaluation_id, ref, (golden.urn, golden.version), template, model, self.clock())
        self.waiting.set()

    async def request(
        self,
        caller: Principal,
        urn: str,
        version: int,
        golden: DatasetVersion | None,
        template: str | None = None,
        model: str | None = None,
    ) -> UUID:
        """The same, asked over HTTP. Raises NotFound; for prompts also GatewayNotSet and TemplateUnknown."""
        async with self.database.begin(caller.workspace) as tx:
            asset = await self.store.asset(tx, urn, version)
            if asset is None:
                raise NotFound(f"{urn}@{version} is not known to the evaluator")
            own = await self.store.golden_set_of(tx, urn, version)
            chosen = (golden.urn, golden.version) if golden else own
            if chosen is None or await self.store.dataset(tx, *chosen) is None:
                raise NotFound(f"{urn}@{version} has no golden set that is known to the evaluator; name one")
            by_task = TEMPLATES.get(asset.task or "", TEMPLATES["classification"])
            used = template or (PROMPT_TEMPLATE if asset.kind == "prompt" else by_task)
            answering = self._answering(tx, asset, used, model)
            evaluation_id = new_id()
            await self.store.ask(tx, evaluation_id, asset.ref, chosen, used, answering, self.clock())
        self.waiting.set()
        return evaluation_id

    async def completed(
        self,
        tx: Transaction,
        evaluation: Evaluation,
        refs: tuple[AssetRef, DatasetVersion],
        measures: dict[str, Interval],
        report: str,
        finished: Finished,
    ) -> None:
        """An evaluation ended with a report; says so once."""
        now = self.clock()
        shown = {name: measure.model_dump(mode="json") for name, measure in measures.items()}
        if not await self.store.end(tx, evaluation, now, rows=finished.rows, report=report, measures=shown):
            return
        tx.emit(
            EvalCompleted(
                evaluation_id=evaluation.id,
                asset=refs[0],
                golden_set=refs[1],
                template=evaluation.template,
                model=evaluation.model,
                measures=measures,
                report=report,
                rows=finished.rows,
                errors=finished.errors,
                started_at=evaluation.started_at or now,
                ended_at=now,
            )
        )

    async def failed(self, tx: Transaction, evaluation: Evaluation, ref: AssetRef, error: MintmarkError) -> None:
        """An evaluation could not be done; says so once. This is no score."""
        if await self.store.end(tx, evaluation, self.clock(), code=error.code, reason=error.message):
            self._failed(tx, evaluation.id, ref, error.code, error.message)

    def _failed(self, tx: Transaction, evaluation_id: UUID, ref: AssetRef, code: str, reason: str) -> None:
        tx.emit(EvalFailed(evaluation_id=evaluation_id, asset=ref, code=code, reason=reason[:4000]))

    async def shown(self, caller: Principal, evaluation_id: UUID) -> Evaluation:
        """One evaluation. Raises NotFound."""
        async with self.database.begin(caller.workspace) as tx:
            found = await self.store.evaluation(tx, evaluation_id)
        if found is None:
            raise NotFound(f"there is no evaluation {evaluation_id}")
        return found

    async def listed(
        self, caller: Principal, urn: str | None, version: int | None, after: tuple[datetime, UUID] | None, most: int
    ) -> list[Evaluation]:
        """Evaluations, newest first."""
        async with self.database.begin(caller.workspace) as tx:
            return await self.store.evaluations(tx, urn, version, after, most)
