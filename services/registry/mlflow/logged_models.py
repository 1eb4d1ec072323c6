"""Logged models of MLflow 3: made by a run, finished when their files are here, tagged and found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from services.registry.domain.tracking import MODEL_STATUSES, LoggedModel
from services.registry.handlers.tracking import Tracking
from services.registry.mlflow import checks, filters
from services.registry.mlflow.asked import Asked
from services.registry.mlflow.errors import MlflowError, wrong
from services.registry.mlflow.experiments import experiment_number
from services.registry.mlflow.paging import offset_of, paged
from services.registry.mlflow.routing import Routes
from services.registry.mlflow.shapes import ms, pairs
from services.registry.mlflow.tracking import metric_shown
from shared.http import PageToken

NUMBERS = frozenset({"creation_timestamp", "creation_time", "last_updated_timestamp"})
MOST_AT_ONCE = 5_000


def add_to(routes: Routes, tracking: Tracking) -> None:
    """Every route of logged models."""

    @routes.post("logged-models", "submit")
    async def create(asked: Asked) -> Any:
        name = asked.some_text("name") or ""
        if any(character in name for character in "/:.%\"'"):
            raise wrong(f"Invalid model name ({name[:100]!r}): no slash, colon, dot, percent or quote, please")
        made = await tracking.create_model(
            asked.caller,
            experiment_number(asked.text("experiment_id")),
            name,
            asked.some_text("model_type") or "",
            asked.some_text("source_run_id") or "",
            checks.tags(asked.pairs("tags")),
            checks.tags(asked.pairs("params")),
        )
        return {"model": shown(made)}

    @routes.get("logged-models/{model_id}", "read")
    async def get(asked: Asked) -> Any:
        return {"model": shown(await tracking.model(asked.caller, asked.text("model_id")))}

    @routes.patch("logged-models/{model_id}", "submit")
    async def finish(asked: Asked) -> Any:
        status = asked.fields.get("status")
        number = next((n for n, name in MODEL_STATUSES.items() if status in (n, name, str(n))), None)
        if number is None:
            raise wrong(f"Invalid value {str(status)[:50]!r} for parameter 'status' supplied")
        made = await tracking.change_model(
            asked.caller, asked.text("model_id"), lambda one: replace(one, status=number)
        )
        return {"model": shown(made)}

    @routes.delete("logged-models/{model_id}", "move")
    async def delete(asked: Asked) -> Any:
        await tracking.change_model(asked.caller, asked.text("model_id"), lambda one: one, delete=True)
        return {}

    @routes.patch("logged-models/{model_id}/tags", "submit")
    async def set_tags(asked: Asked) -> Any:
        tags = checks.tags(asked.pairs("tags"))
        await tracking.change_model(
            asked.caller, asked.text("model_id"), lambda one: replace(one, tags={**one.tags, **tags})
        )
        return {}

    @routes.delete("logged-models/{model_id}/tags/{tag_key}", "submit")
    async def delete_tag(asked: Asked) -> Any:
        key = asked.text("tag_key")

        def without(one: LoggedModel) -> LoggedModel:
            if key not in one.tags:
                raise MlflowError("RESOURCE_DOES_NOT_EXIST", f"No tag with key {key[:100]!r}")
            return replace(one, tags={name: value for name, value in one.tags.items() if name != key})

        await tracking.change_model(asked.caller, asked.text("model_id"), without)
        return {}

    @routes.post("logged-models/{model_id}/params", "submit")
    async def log_params(asked: Asked) -> Any:
        params = checks.tags(asked.pairs("params"))
        await tracking.change_model(
            asked.caller, asked.text("model_id"), lambda one: replace(one, params={**one.params, **params})
        )
        return {}

    @routes.post("logged-models/search", "read")
    async def search(asked: Asked) -> Any:
        numbers = [experiment_number(text) for text in asked.texts("experiment_ids")]
        text, most = asked.some_text("filter") or "", asked.whole("max_results", 100)
        if not 1 <= most <= MOST_AT_ONCE:
            raise wrong(f"max_results is 1 to {MOST_AT_ONCE}, not {most}")
        fit, order = filters.fits(filters.parse(text, NUMBERS), _look), []
        for clause in asked.objects("order_by"):
            of, _, key = clause.text("field_name").rpartition(".")
            up = clause.fields.get("ascending") is not False
            order.append((filters.KINDS.get(of or "attribute", ""), key, up))
        keys = [(_sorter(of, key), up) for of, key, up in order]
        token = PageToken("logged", asked.caller.workspace, sorted(numbers), text, order)
        last = offset_of(asked, token) + most
        found = await tracking.models(asked.caller, numbers, fit, keys, last + 1)
        page, more = paged(asked, token, found, most)
        return {"models": [shown(one) for one in page], **more} if page else {}


def _sorter(of: str, key: str) -> Callable[[LoggedModel], Any]:
    return lambda one: _look(one, of, key)


def _look(one: LoggedModel, of: str, key: str) -> Any:
    if of in ("tag", "param"):
        return (one.tags if of == "tag" else one.params).get(key)
    if of == "metric":
        return next((point.value for point in one.metrics if point.key == key), None)
    values = {
        "name": one.name,
        "model_id": one.model_id,
        "model_type": one.model_type,
        "source_run_id": one.source_run_id,
        "status": MODEL_STATUSES[one.status].removeprefix("LOGGED_MODEL_"),
        "creation_timestamp": ms(one.created_at),
        "creation_time": ms(one.created_at),
        "last_updated_timestamp": ms(one.updated_at),
    }
    if of != "attribute" or key not in values:
        raise wrong(f"Invalid attribute key '{key[:100]}' specified. Valid ones: {', '.join(values)}")
    return values[key]


def shown(one: LoggedModel) -> dict[str, Any]:
    info: dict[str, Any] = {
        "model_id": one.model_id,
        "experiment_id": str(one.experiment),
        "name": one.name,
        "creation_timestamp_ms": ms(one.created_at),
        "last_updated_timestamp_ms": ms(one.updated_at),
        "artifact_uri": one.location,
        "status": MODEL_STATUSES[one.status],
        "model_type": one.model_type,
        "source_run_id": one.source_run_id,
        "tags": pairs(one.tags),
    }
    data: dict[str, Any] = {"params": pairs(one.params)}
    if one.metrics:
        data["metrics"] = [
            {**metric_shown(point), "model_id": one.model_id, "run_id": one.source_run_id} for point in one.metrics
        ]
    return {"info": info, "data": data}
