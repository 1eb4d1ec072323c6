"""Experiments: made, found by id and name, renamed, tagged, deleted and restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from services.registry.domain.tracking import Experiment
from services.registry.handlers.tracking import Tracking
from services.registry.mlflow import checks, filters
from services.registry.mlflow.asked import Asked
from services.registry.mlflow.errors import wrong
from services.registry.mlflow.paging import paged, view, without
from services.registry.mlflow.routing import Routes
from services.registry.mlflow.shapes import ms, pairs
from shared.http import PageToken

NUMBERS = frozenset({"creation_time", "last_update_time"})


def experiment_number(text: str) -> int:
    """An experiment's id, which is a number written out."""
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise wrong(f"Invalid experiment ID: {text[:100]!r}")
    return int(text)


def add_to(routes: Routes, tracking: Tracking) -> None:
    """Every route of experiments."""

    @routes.post("experiments/create", "submit")
    async def create(asked: Asked) -> Any:
        location = asked.some_text("artifact_location") or None
        if location is not None and not location.startswith(("s3://", "gs://", "wasbs://", "https://", "hdfs://")):
            raise wrong("artifact_location takes the address of a store; without one, files are kept here")
        tags = checks.tags(asked.pairs(), 20_000)
        name = _experiment_name(asked.text("name"))
        made = await tracking.create_experiment(asked.caller, name, location, tags)
        return {"experiment_id": str(made.id)}

    @routes.get("experiments/get", "read")
    async def get(asked: Asked) -> Any:
        return {"experiment": shown(await tracking.experiment(asked.caller, _experiment_of(asked)))}

    @routes.get("experiments/get-by-name", "read")
    async def get_by_name(asked: Asked) -> Any:
        return {"experiment": shown(await tracking.experiment_called(asked.caller, asked.text("experiment_name")))}

    async def search(asked: Asked) -> Any:
        most = asked.whole("max_results", 0)
        if not 1 <= most <= 50_000:
            raise wrong(f"Invalid value {most} for parameter 'max_results' supplied: 1 to 50000")
        deleted = view(asked)
        comparisons = filters.parse(asked.some_text("filter") or "", NUMBERS)
        order = filters.ordering(asked.texts("order_by"))
        fit = filters.fits(comparisons, _look_at_experiment)
        found = [
            one
            for one in await tracking.experiments(asked.caller)
            if (deleted is None or (one.deleted_at is not None) == deleted) and fit(one)
        ]
        for of, key, ascending in reversed(order):
            found.sort(key=_sorter(of, key), reverse=not ascending)
        token = PageToken("experiments", asked.caller.workspace, asked.some_text("filter"), asked.texts("order_by"))
        page, more = paged(asked, token, found, most)
        return {"experiments": [shown(one) for one in page], **more} if page else {}

    routes.get("experiments/search", "read")(search)
    routes.post("experiments/search", "read")(search)

    @routes.post("experiments/delete", "move")
    async def delete(asked: Asked) -> Any:
        await tracking.delete_experiment(asked.caller, _experiment_of(asked))
        return {}

    @routes.post("experiments/restore", "move")
    async def restore(asked: Asked) -> Any:
        await tracking.change_experiment(
            asked.caller, _experiment_of(asked), lambda one: replace(one, deleted_at=None), deleted=True
        )
        return {}

    @routes.post("experiments/update", "submit")
    async def update(asked: Asked) -> Any:
        name = _experiment_name(asked.text("new_name"))
        await tracking.change_experiment(asked.caller, _experiment_of(asked), lambda one: replace(one, name=name))
        return {}

    @routes.post("experiments/set-experiment-tag", "submit", readers_tags=("_mlflow_experiment_ids",))
    async def set_tag(asked: Asked) -> Any:
        tag = checks.tags({asked.text("key"): asked.some_text("value") or ""}, 20_000)
        await tracking.change_experiment(
            asked.caller, _experiment_of(asked), lambda one: replace(one, tags={**one.tags, **tag})
        )
        return {}

    @routes.post("experiments/delete-experiment-tag", "submit")
    async def delete_tag(asked: Asked) -> Any:
        key = asked.text("key")
        await tracking.change_experiment(
            asked.caller, _experiment_of(asked), lambda one: replace(one, tags=without(one.tags, key))
        )
        return {}


def _experiment_of(asked: Asked) -> int:
    return experiment_number(asked.text("experiment_id"))


def _experiment_name(name: str) -> str:
    if len(name) > 500 or "\x00" in name:
        raise wrong("'name' exceeds the maximum length of 500 characters")
    return name


def _sorter(of: str, key: str) -> Callable[[Experiment], Any]:
    return lambda one: _look_at_experiment(one, of, key) or ""


def _look_at_experiment(one: Experiment, of: str, key: str) -> str | float | None:
    if of == "tag":
        return one.tags.get(key)
    values: dict[str, str | float | None] = {
        "name": one.name,
        "experiment_id": str(one.id),
        "creation_time": ms(one.created_at),
        "last_update_time": ms(one.updated_at),
    }
    if of != "attribute" or key not in values:
        raise wrong(f"Invalid attribute key '{key[:100]}' specified. Valid ones: {', '.join(values)}")
    return values[key]


def shown(one: Experiment) -> dict[str, Any]:
    found: dict[str, Any] = {
        "experiment_id": str(one.id),
        "name": one.name,
        "artifact_location": one.root,
        "lifecycle_stage": "deleted" if one.deleted_at else "active",
        "last_update_time": ms(one.updated_at),
        "creation_time": ms(one.created_at),
    }
    return {**found, "tags": pairs(one.tags)} if one.tags else found
