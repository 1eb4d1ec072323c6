"""Experiments and runs: metrics, parameters, tags, inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from services.registry.domain.tracking import RUN_NAME, STATUSES, Point, Run
from services.registry.handlers.tracking import NewRun, Tracking
from services.registry.mlflow import checks, experiments, filters
from services.registry.mlflow.asked import Asked
from services.registry.mlflow.errors import wrong
from services.registry.mlflow.experiments import experiment_number
from services.registry.mlflow.paging import offset_of, view, without
from services.registry.mlflow.routing import Routes
from services.registry.mlflow.shapes import number_shown, pairs
from shared.http import PageToken

LARGEST = 1.7976931348623157e308
MOST_IN_BATCH = 1000
MOST_PAIRS = 100
MOST_HISTORY = 25_000
NUMBERS = frozenset({"start_time", "end_time", "created", "creation_time", "last_update_time"})
RUN_ATTRIBUTES = {
    "run_id": "run_id", "run_name": "run_name", "run name": "run_name", "Run name": "run_name", "user_id": "user_id",
    "status": "status", "start_time": "start_time", "created": "start_time", "end_time": "end_time",
    "artifact_uri": "artifact_uri", "experiment_id": "experiment_id",
}  # fmt: skip


def add_to(routes: Routes, tracking: Tracking) -> None:
    """Every route of tracking, without logged models and files."""
    experiments.add_to(routes, tracking)
    _runs(routes, tracking)
    _values(routes, tracking)
    _histories(routes, tracking)


def _runs(routes: Routes, tracking: Tracking) -> None:
    @routes.post("runs/create", "submit")
    async def create(asked: Asked) -> Any:
        wanted = NewRun(
            name=asked.some_text("run_name") or "",
            user=(asked.some_text("user_id") or "")[:256],
            started_ms=asked.whole("start_time", 0) if asked.has("start_time") else None,
            tags=_run_tags(asked),
        )
        experiment = experiment_number(asked.some_text("experiment_id") or "0")
        return {"run": run_shown(await tracking.start(asked.caller, experiment, wanted))}

    @routes.get("runs/get", "read")
    async def get(asked: Asked) -> Any:
        return {"run": run_shown(await tracking.run(asked.caller, _run_of(asked)))}

    @routes.post("runs/update", "submit")
    async def update(asked: Asked) -> Any:
        status, name = asked.some_text("status"), asked.some_text("run_name")
        ended = asked.whole("end_time") if asked.has("end_time") else None
        if status is not None and status not in STATUSES:
            raise wrong(f"Invalid value '{status[:40]}' for parameter 'status' supplied: one of {', '.join(STATUSES)}")

        def change(run: Run) -> Run:
            run = _named(run, name) if name else run
            return replace(run, status=status or run.status, ended_ms=run.ended_ms if ended is None else ended)

        return {"run_info": _info(await tracking.change(asked.caller, _run_of(asked), change))}

    @routes.post("runs/delete", "move")
    async def delete(asked: Asked) -> Any:
        await tracking.change(asked.caller, _run_of(asked), tracking.dropping, active=False)
        return {}

    @routes.post("runs/restore", "move")
    async def restore(asked: Asked) -> Any:
        await tracking.change(asked.caller, _run_of(asked), lambda run: replace(run, deleted_at=None), active=False)
        return {}

    @routes.post("runs/search", "read")
    async def search(asked: Asked) -> Any:
        most = asked.whole("max_results", 1000)
        if not 1 <= most <= 50_000:
            raise wrong(f"Invalid value {most} for parameter 'max_results' supplied: 1 to 50000")
        text, clauses = asked.some_text("filter") or "", asked.texts("order_by")
        comparisons = filters.parse(text, NUMBERS)
        for one in comparisons:
            if one.of == "attribute" and one.key not in RUN_ATTRIBUTES:
                raise wrong(
                    f"Invalid attribute key '{one.key[:100]}' specified. Valid ones: {', '.join(RUN_ATTRIBUTES)}"
                )
        order = [(_key_of(of, key), ascending) for of, key, ascending in filters.ordering(clauses)]
        fit = filters.fits(comparisons, _look_at_run) if comparisons else None
        numbers = [experiment_number(text) for text in asked.texts("experiment_ids")]
        token = PageToken("runs", asked.caller.workspace, sorted(numbers), text, clauses)
        offset = offset_of(asked, token)
        found = await tracking.runs(asked.caller, numbers, view(asked, "run_view_type"), fit, order, offset, most + 1)
        answer: dict[str, Any] = {"runs": [run_shown(run) for run in found[:most]]} if found else {}
        if len(found) > most:
            answer["next_page_token"] = token.make([offset + most])
        return answer


def _values(routes: Routes, tracking: Tracking) -> None:
    @routes.post("runs/log-metric", "submit")
    async def log_metric(asked: Asked) -> Any:
        point = _point(asked)
        await tracking.log(asked.caller, _run_of(asked), [point])
        if asked.some_text("model_id"):
            await tracking.log_of_models(asked.caller, {asked.text("model_id"): [point]})
        return {}

    @routes.post("runs/log-parameter", "submit")
    async def log_parameter(asked: Asked) -> Any:
        wanted = _params([asked])
        await tracking.change(asked.caller, _run_of(asked), lambda run: replace(run, params=run.with_params(wanted)))
        return {}

    @routes.post("runs/log-batch", "submit")
    async def log_batch(asked: Asked) -> Any:
        metrics, given, tags = asked.objects("metrics"), asked.objects("params"), asked.objects("tags")
        if max(len(given), len(tags)) > MOST_PAIRS or len(metrics) + len(given) + len(tags) > MOST_IN_BATCH:
            raise wrong("A batch logging request takes 1000 metrics, 100 params and 100 tags at most, 1000 together.")
        points, params, tagged = [_point(one) for one in metrics], _params(given), _run_tags(asked)

        def change(run: Run) -> Run:
            return _tagged(replace(run, params=run.with_params(params)), tagged)

        await tracking.log(asked.caller, _run_of(asked), points, change if params or tagged else None)
        of_models: dict[str, list[Point]] = {}
        for one, point in zip(metrics, points, strict=True):
            if one.some_text("model_id"):
                of_models.setdefault(one.text("model_id"), []).append(point)
        if of_models:
            await tracking.log_of_models(asked.caller, of_models)
        return {}

    @routes.post("runs/set-tag", "submit", readers_tags=("mlflow.linkedPrompts",))
    async def set_tag(asked: Asked) -> Any:
        tag = {_key(asked): _bounded(asked.some_text("value") or "", 8000)}
        await tracking.change(asked.caller, _run_of(asked), lambda run: _tagged(run, tag))
        return {}

    @routes.post("runs/delete-tag", "submit")
    async def delete_tag(asked: Asked) -> Any:
        key = asked.text("key")
        await tracking.change(asked.caller, _run_of(asked), lambda run: replace(run, tags=without(run.tags, key)))
        return {}

    @routes.post("runs/log-inputs", "submit")
    async def log_inputs(asked: Asked) -> Any:
        datasets = [_dataset(one) for one in asked.objects("datasets")]
        models = [one.text("model_id") for one in asked.objects("models")]

        def change(run: Run) -> Run:
            known = [one["dataset"] for one in run.inputs]
            fresh = [one for one in datasets if one["dataset"] not in known]
            more = [model for model in models if model not in run.model_inputs]
            return replace(run, inputs=[*run.inputs, *fresh], model_inputs=[*run.model_inputs, *more])

        await tracking.change(asked.caller, _run_of(asked), change)
        return {}

    @routes.post("runs/outputs", "submit")
    async def log_outputs(asked: Asked) -> Any:
        models = [{"model_id": one.text("model_id"), "step": one.whole("step", 0)} for one in asked.objects("models")]

        def change(run: Run) -> Run:
            fresh = [one for one in models if one not in run.model_outputs]
            return replace(run, model_outputs=[*run.model_outputs, *fresh])

        await tracking.change(asked.caller, _run_of(asked), change)
        return {}

    @routes.post("runs/log-model", "submit")
    async def log_model(asked: Asked) -> Any:
        entry = asked.text("model_json")

        def change(run: Run) -> Run:
            before = run.tags.get("mlflow.log-model.history", "[]")
            return _tagged(run, {"mlflow.log-model.history": f"{before[:-1]}{',' if len(before) > 2 else ''}{entry}]"})

        await tracking.change(asked.caller, _run_of(asked), change)
        return {}


def _histories(routes: Routes, tracking: Tracking) -> None:
    @routes.get("metrics/get-history", "read")
    async def history(asked: Asked) -> Any:
        run_id, key = _run_of(asked), asked.text("metric_key")
        most = _most(asked)
        token = PageToken("history", asked.caller.workspace, run_id, key)
        offset = offset_of(asked, token)
        found = await tracking.history(asked.caller, run_id, key, offset, most + 1)
        answer: dict[str, Any] = {"metrics": [metric_shown(point) for point in found[:most]]} if found else {}
        if len(found) > most:
            answer["next_page_token"] = token.make([offset + most])
        return answer

    async def bulk(asked: Asked) -> Any:
        runs = [run for name in ("run_id", "run_ids") for run in asked.many(name)]
        if not 1 <= len(runs) <= MOST_PAIRS:
            raise wrong("ask for 1 to 100 runs, each as run_id")
        most = _most(asked)
        key = asked.text("metric_key")
        found: list[dict[str, Any]] = []
        for run_id in sorted(runs):
            points = await tracking.history(asked.caller, str(run_id), key, 0, most - len(found))
            found += [{**metric_shown(point), "run_id": run_id} for point in points]
        return {"metrics": found}

    routes.get("metrics/get-history-bulk", "read")(bulk)
    routes.get("metrics/get-history-bulk-interval", "read")(bulk)


# What is read from requests


def _most(asked: Asked) -> int:
    """How much of a history; MLflow's limit where more is asked for."""
    most = asked.whole("max_results", MOST_HISTORY)
    if most < 1:
        raise wrong(f"Invalid value {most} for parameter 'max_results' supplied: it must be greater than 0")
    return min(most, MOST_HISTORY)


def _run_of(asked: Asked) -> str:
    return asked.text("run_id") if asked.has("run_id") or not asked.has("run_uuid") else asked.text("run_uuid")


def _key(asked: Asked) -> str:
    return checks.key(asked.text("key"))


def _bounded(text: str, most: int) -> str:
    """MLflow's client asks for long values to be cut, as its server does."""
    return text[:most].replace("\x00", "")


def _run_tags(asked: Asked) -> dict[str, str]:
    return {_key(one): _bounded(one.some_text("value") or "", 8000) for one in asked.objects("tags")}


def _params(given: list[Asked]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        key, value = _key(one), _bounded(one.some_text("value") or "", 6000)
        if found.get(key, value) != value or key in found:
            raise wrong(f"Duplicate parameter keys have been submitted: {key[:100]!r}")
        found[key] = value
    return found


def _point(asked: Asked) -> Point:
    value = asked.fields.get("value")
    if isinstance(value, list) and asked.queried:
        value = value[-1]
    if value is None:
        asked.text("value")
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"Invalid value {str(value)[:50]!r} for parameter 'value' supplied: it must be a number")
    number = float(max(min(value, LARGEST), -LARGEST)) if value == value else math.nan
    at = asked.whole("timestamp")
    if at < 0:
        raise wrong("Invalid value for parameter 'timestamp' supplied: it must not be negative")
    return Point(checks.key(asked.text("key"), "name"), number, at, asked.whole("step", 0))


def _dataset(asked: Asked) -> dict[str, Any]:
    dataset = asked.inner("dataset")
    kept = {name: dataset.some_text(name) for name in ("name", "digest", "source_type", "source", "schema", "profile")}
    dataset.text("name"), dataset.text("digest"), dataset.text("source_type"), dataset.text("source")
    if len(kept["name"] or "") > 500 or len(kept["digest"] or "") > 36:
        raise wrong("a dataset's name has 500 characters at most, its digest 36")
    return {"tags": pairs(asked.pairs()), "dataset": {name: value for name, value in kept.items() if value}}


def _named(run: Run, name: str) -> Run:
    return replace(run, name=name, tags={**run.tags, RUN_NAME: name})


def _tagged(run: Run, tags: Mapping[str, str]) -> Run:
    run = replace(run, tags={**run.tags, **tags})
    return replace(run, name=tags[RUN_NAME]) if tags.get(RUN_NAME) else run


# What filters look at


def _look_at_run(run: Run, of: str, key: str) -> Any:
    if of == "metric":
        return next((point.value for point in run.metrics if point.key == key), None)
    if of == "param":
        return run.params.get(key)
    if of == "tag":
        return run.tags.get(key)
    if of == "dataset":
        if key == "context":
            tags = [tag for one in run.inputs for tag in one["tags"]]
            return [tag["value"] for tag in tags if tag["key"] == "mlflow.data.context"]
        return [one["dataset"][key] for one in run.inputs if key in one["dataset"]]
    return {
        "run_id": run.run_id,
        "run_name": run.name,
        "user_id": run.user,
        "status": run.status,
        "start_time": run.started_ms,
        "end_time": run.ended_ms,
        "artifact_uri": run.location,
        "experiment_id": str(run.experiment),
    }[RUN_ATTRIBUTES[key]]


def _key_of(of: str, key: str) -> Callable[[Run], Any]:
    if of == "attribute" and key not in RUN_ATTRIBUTES:
        raise wrong(f"Invalid order_by key '{key[:100]}'")

    def value(run: Run) -> Any:
        found = _look_at_run(run, of, key)
        return None if found != found else found

    return value


# Shapes


def metric_shown(point: Point) -> dict[str, Any]:
    return {
        "key": point.key,
        "value": number_shown(point.value),
        "timestamp": point.timestamp_ms,
        "step": point.step,
    }


def _info(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {
        "run_uuid": run.run_id,
        "run_id": run.run_id,
        "run_name": run.name,
        "experiment_id": str(run.experiment),
        "user_id": run.user,
        "status": run.status,
        "start_time": run.started_ms,
        "artifact_uri": run.location,
        "lifecycle_stage": "deleted" if run.deleted_at else "active",
    }
    return found if run.ended_ms is None else {**found, "end_time": run.ended_ms}


def run_shown(run: Run) -> dict[str, Any]:
    data: dict[str, Any] = {"tags": pairs(run.tags)}
    if run.metrics:
        data["metrics"] = [metric_shown(point) for point in run.metrics]
    if run.params:
        data["params"] = pairs(run.params)
    inputs: dict[str, Any] = {}
    if run.inputs:
        inputs["dataset_inputs"] = run.inputs
    if run.model_inputs:
        inputs["model_inputs"] = [{"model_id": model} for model in run.model_inputs]
    found: dict[str, Any] = {"info": _info(run), "data": data, "inputs": inputs}
    if run.model_outputs:
        found["outputs"] = {"model_outputs": run.model_outputs}
    return found
