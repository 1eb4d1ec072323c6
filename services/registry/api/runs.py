"""Experiments and runs: what was tried, with which signed configuration and data, and what came out; compared."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from services.registry.api.parts import NO_NUL, PREFIX, Reader, Size, Submitter, Token, after
from services.registry.domain.tracking import Experiment, Point, Run, moment
from services.registry.handlers import Handlers
from services.registry.handlers.tracking import NewRun
from shared.errors import Invalid
from shared.events.base import LAST_VERSION, Actor, AssetRef, Json
from shared.events.upstream import DatasetVersion
from shared.http import Page, PageToken
from shared.http.edge import StrictRoute

Text = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=r"^[^\x00]+$")]
Value = Annotated[str, StringConstraints(max_length=8000, pattern=NO_NUL)]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Compared = Annotated[list[RunId], Query(min_length=2, max_length=50)]


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewExperiment(Asked):
    """Runs that belong together."""

    name: Text
    tags: dict[Key, Value] = Field(default_factory=dict, max_length=1000)


class ExperimentView(BaseModel):
    id: int
    name: str
    tags: dict[str, str]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    @classmethod
    def of(cls, one: Experiment) -> ExperimentView:
        return cls(
            id=one.id,
            name=one.name,
            tags=one.tags,
            created_at=one.created_at,
            updated_at=one.updated_at,
            deleted_at=one.deleted_at,
        )


class Config(Asked):
    """What a run is made from. Its digest is kept with whoever starts the run, as their key proves."""

    name: Text | None = Field(default=None, description="the asset that the run is for")
    commit: Annotated[str, StringConstraints(max_length=200, pattern=NO_NUL)] | None = None
    prompts: list[AssetRef] = Field(default_factory=list, max_length=100)
    parameters: Json = Field(default_factory=dict)
    datasets: list[DatasetVersion] = Field(default_factory=list, max_length=100)


class NewRunBody(Asked):
    experiment: int = Field(default=0, ge=0, le=LAST_VERSION)
    name: Annotated[str, StringConstraints(max_length=500, pattern=NO_NUL)] = ""
    config: Config = Config()
    tags: dict[Key, Value] = Field(default_factory=dict, max_length=1000)


class Measured(Asked):
    """One value of a metric at a step; `at` is now where it is left out."""

    key: Key
    value: Annotated[float, Field(allow_inf_nan=False)]
    step: int = Field(default=0, ge=-(2**62), le=2**62)
    at: AwareDatetime | None = None


class Measures(Asked):
    metrics: list[Measured] = Field(min_length=1, max_length=1000)


class RunEnd(Asked):
    status: Literal["FINISHED", "FAILED", "KILLED"]


class RunView(BaseModel):
    """A run with the latest value of each of its metrics."""

    run_id: str
    experiment: int
    name: str
    status: str
    config: dict[str, Any] | None
    config_digest: str | None
    signer: Actor
    tags: dict[str, str]
    parameters: dict[str, Any]
    metrics: dict[str, float | None]
    datasets: list[dict[str, Any]]
    artefacts: str
    started_at: datetime
    ended_at: datetime | None
    deleted_at: datetime | None

    @classmethod
    def of(cls, run: Run) -> RunView:
        return cls(
            run_id=run.run_id,
            experiment=run.experiment,
            name=run.name,
            status=run.status,
            config=run.config,
            config_digest=run.config_digest,
            signer=run.signer,
            tags=run.tags,
            parameters=parameters_of(run),
            metrics={point.key: finite(point.value) for point in run.metrics},
            datasets=[*(run.config or {}).get("datasets", ()), *(one["dataset"] for one in run.inputs)],
            artefacts=run.location,
            started_at=moment(run.started_ms),
            ended_at=None if run.ended_ms is None else moment(run.ended_ms),
            deleted_at=run.deleted_at,
        )


class PointView(BaseModel):
    step: int
    at: datetime
    value: float | None


class DifferenceView(BaseModel):
    """What a parameter, tag or metric is in each run; `differs` where not everywhere the same."""

    of: Literal["parameter", "metric", "tag", "config"]
    key: str
    values: list[Any]
    differs: bool


class ComparisonView(BaseModel):
    """Runs side by side, in the order in which they were asked for."""

    runs: list[RunView]
    rows: list[DifferenceView]


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["runs"])
    tracking = handlers.tracking

    @routes.post("/experiments", status_code=201)
    async def create_experiment(wanted: NewExperiment, caller: Submitter) -> ExperimentView:
        """A new experiment; its name is taken once and for all."""
        return ExperimentView.of(await tracking.create_experiment(caller, wanted.name, None, wanted.tags))

    @routes.get("/experiments")
    async def experiments(caller: Reader, page_size: Size = 50, page_token: Token = None) -> Page[ExperimentView]:
        """Last changed first."""
        token = PageToken("experiments", caller.workspace)
        found = await tracking.experiments(caller)
        offset = after(token, page_token, 0)
        more = token.make([offset + page_size]) if len(found) > offset + page_size else None
        return Page(items=[ExperimentView.of(one) for one in found[offset : offset + page_size]], next_page_token=more)

    @routes.post("/runs", status_code=201)
    async def start(wanted: NewRunBody, caller: Submitter) -> RunView:
        """Start a run. The configuration is signed by its author: digest and proven caller are kept together."""
        config = wanted.config.model_dump(mode="json", exclude_none=True)
        try:
            run = await tracking.start(
                caller, wanted.experiment, NewRun(wanted.name, caller.id, None, wanted.tags, config)
            )
        except (ValueError, RecursionError) as error:
            raise Invalid(f"the configuration holds a value that canonical JSON has no form for: {error}") from None
        return RunView.of(run)

    @routes.get("/runs")
    async def runs(
        caller: Reader,
        experiment: Annotated[int, Query(ge=0, le=LAST_VERSION)] = 0,
        page_size: Size = 50,
        page_token: Token = None,
    ) -> Page[RunView]:
        """Runs of an experiment, last started first."""
        token = PageToken("runs", caller.workspace, experiment)
        offset = after(token, page_token, 0)
        found = await tracking.runs(caller, [experiment], False, None, (), offset, page_size + 1)
        more = token.make([offset + page_size]) if len(found) > page_size else None
        return Page(items=[RunView.of(run) for run in found[:page_size]], next_page_token=more)

    @routes.get("/runs:compare")
    async def compare(caller: Reader, run: Compared) -> ComparisonView:
        """Two or more runs side by side: parameters, metrics, tags, commit and data, and where they differ."""
        found = [await tracking.run(caller, run_id) for run_id in run]
        return ComparisonView(runs=[RunView.of(one) for one in found], rows=compared(found))

    @routes.get("/runs/{run_id}")
    async def one(run_id: RunId, caller: Reader) -> RunView:
        return RunView.of(await tracking.run(caller, run_id))

    @routes.post("/runs/{run_id}/metrics", status_code=204)
    async def measure(run_id: RunId, wanted: Measures, caller: Submitter) -> None:
        """Values of metrics over steps, all of them or none."""
        points = [Point(one.key, one.value, tracking.ms(one.at), one.step) for one in wanted.metrics]
        await tracking.log(caller, run_id, points)

    @routes.get("/runs/{run_id}/metrics/{key:path}")
    async def history(
        run_id: RunId, key: Key, caller: Reader, page_size: Size = 500, page_token: Token = None
    ) -> Page[PointView]:
        """Every value of a metric, in the order of time."""
        token = PageToken("metric", caller.workspace, run_id, key)
        offset = after(token, page_token, 0)
        await tracking.run(caller, run_id)
        found = await tracking.history(caller, run_id, key, offset, page_size + 1)
        more = token.make([offset + page_size]) if len(found) > page_size else None
        return Page(
            items=[
                PointView(step=point.step, at=moment(point.timestamp_ms), value=finite(point.value))
                for point in found[:page_size]
            ],
            next_page_token=more,
        )

    @routes.post("/runs/{run_id}/end")
    async def end(run_id: RunId, wanted: RunEnd, caller: Submitter) -> RunView:
        """The run is over; run.completed says so, with its data, settings and metrics."""
        ended = tracking.ms(None)
        return RunView.of(
            await tracking.change(caller, run_id, lambda run: replace(run, status=wanted.status, ended_ms=ended))
        )

    return routes


def parameters_of(run: Run) -> dict[str, Any]:
    return {**(run.config or {}).get("parameters", {}), **run.params}


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if abs(value) < float("inf") else None


def compared(runs: list[Run]) -> list[DifferenceView]:
    """Every parameter, metric, tag and part of the configuration, with its value in each run."""
    columns: list[dict[tuple[str, str], Any]] = []
    for run in runs:
        config = {key: value for key, value in (run.config or {}).items() if key != "parameters"}
        columns.append(
            {
                **{("parameter", key): value for key, value in parameters_of(run).items()},
                **{("metric", point.key): finite(point.value) for point in run.metrics},
                **{("tag", key): value for key, value in run.tags.items()},
                **{("config", key): value for key, value in config.items()},
            }
        )
    order = {"config": 0, "parameter": 1, "metric": 2, "tag": 3}
    rows = []
    for of, key in sorted({key for column in columns for key in column}, key=lambda one: (order[one[0]], one[1])):
        values = [column.get((of, key)) for column in columns]
        differs = any(value != values[0] for value in values)
        rows.append(DifferenceView.model_validate({"of": of, "key": key, "values": values, "differs": differs}))
    return rows
