"""Bringing in what another registry says: told first by a dry run, idempotent by the names that things have there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from services.registry.api.parts import PREFIX, Importer
from services.registry.handlers import Handlers
from services.registry.handlers.imported_runs import Trials
from services.registry.handlers.imports import Item, Outcome
from services.registry.importers.documents import ForeignAsset, From
from services.registry.importers.trials import ForeignExperiment, ForeignModel, ForeignRun
from shared.http.edge import StrictRoute


class Import(BaseModel):
    """Assets as the source has them."""

    model_config = ConfigDict(extra="forbid")

    source: From
    dry_run: bool = False
    assets: Annotated[tuple[ForeignAsset, ...], Field(max_length=200)]


class ImportOfRuns(BaseModel):
    """An experiment as the source has it, with some of its runs and logged models."""

    model_config = ConfigDict(extra="forbid")

    source: From
    dry_run: bool = False
    experiment: ForeignExperiment
    runs: Annotated[tuple[ForeignRun, ...], Field(max_length=1000)] = ()
    models: Annotated[tuple[ForeignModel, ...], Field(max_length=1000)] = ()


class DifferenceView(BaseModel):
    """A field that differs; with `why_not` it stays as it is here."""

    field: str
    before: str | None
    after: str | None
    why_not: str | None


class ItemView(BaseModel):
    """What became (of a dry run: would become) of an asset, or of a version of it."""

    id: str
    urn: str
    version: int | None
    outcome: Outcome
    differences: list[DifferenceView]
    reason: str

    @classmethod
    def of(cls, item: Item) -> ItemView:
        found = [
            DifferenceView(field=one.field, before=_cut(one.before), after=_cut(one.after), why_not=one.why_not)
            for one in item.differences
        ]
        return cls(
            id=item.id,
            urn=item.urn,
            version=item.version,
            outcome=item.outcome,
            differences=found,
            reason=item.reason,
        )


class Imported(BaseModel):
    """Each asset, followed by its versions."""

    items: list[ItemView]


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["imports"])

    @routes.post("/imports")
    async def bring(body: Import, caller: Importer) -> Imported:
        """Versions keep the numbers and times they had. What was brought in before is compared, not made again; what
        stands here otherwise is named and left alone. Sending the same again changes nothing, so no key is needed."""
        found: list[ItemView] = []
        for asset in body.assets:
            items = await handlers.imports.bring(caller, body.source, asset, dry=body.dry_run)
            found += [ItemView.of(item) for item in items]
        return Imported(items=found)

    @routes.post("/imports/runs")
    async def bring_runs(body: ImportOfRuns, caller: Importer) -> Imported:
        """Runs and logged models keep their ids, times and metrics; files stand where clients look for them."""
        trials = Trials(body.experiment, body.runs, body.models)
        items = await handlers.imported_runs.bring(caller, body.source, trials, dry=body.dry_run)
        return Imported(items=[ItemView.of(item) for item in items])

    return routes


def _cut(text: str | None) -> str | None:
    """A value as a diff shows it."""
    return text if text is None or len(text) <= 300 else f"{text[:300]}…"
