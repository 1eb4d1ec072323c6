"""Registered models, their versions, aliases, tags and stages; prompts, which are models to MLflow."""

from __future__ import annotations

from typing import Any, cast

from services.registry.domain.assets import Stage
from services.registry.handlers.catalog import Wanted
from services.registry.handlers.models import Held, Models, NewVersion
from services.registry.mlflow import checks, shapes
from services.registry.mlflow.asked import Asked
from services.registry.mlflow.errors import wrong
from services.registry.mlflow.routing import Routes
from services.registry.mlflow.shapes import IS_PROMPT
from services.registry.mlflow.sources import Given, Sources, check_address

READERS_TAG = "_mlflow_experiment_ids"
"""`load_prompt` writes it in passing; a caller who may only read is not refused for that, and nothing is kept."""

ELSEWHERE = ("s3://", "gs://", "wasbs://", "abfss://", "hdfs://")
"""Stores that nothing here can look into; what stands there is taken as it is said."""

PLACEHOLDERS = ("dummy-source", "prompt-template")


def add_to(routes: Routes, models: Models, sources: Sources) -> None:
    """Every route of the registry but search."""
    _models(routes, models)
    _versions(routes, models, sources)
    _pointers(routes, models)


def _models(routes: Routes, models: Models) -> None:
    @routes.post("registered-models/create", "submit")
    async def create(asked: Asked) -> Any:
        title, tags = checks.model_name(asked.text("name")), checks.tags(asked.pairs())
        kind = "prompt" if tags.get(IS_PROMPT, "").lower() == "true" else "model"
        found = await models.create(asked.caller, title, kind, tags, checks.description(asked.some_text("description")))
        return {"registered_model": shapes.registered_model(found)}

    @routes.get("registered-models/get", "read")
    async def get(asked: Asked) -> Any:
        found = await models.get(asked.caller, checks.model_name(asked.text("name")))
        return {"registered_model": shapes.registered_model(found)}

    @routes.patch("registered-models/update", "submit")
    async def update(asked: Asked) -> Any:
        wanted = Wanted(description=checks.description(asked.some_text("description")), reason="")
        found = await models.describe(asked.caller, checks.model_name(asked.text("name")), wanted)
        return {"registered_model": shapes.registered_model(found)}

    @routes.post("registered-models/rename", "submit")
    async def rename(asked: Asked) -> Any:
        title = checks.model_name(asked.text("new_name"), "new_name")
        found = await models.describe(asked.caller, checks.model_name(asked.text("name")), Wanted(title=title))
        return {"registered_model": shapes.registered_model(found)}

    @routes.delete("registered-models/delete", "move")
    async def delete(asked: Asked) -> Any:
        await models.delete(asked.caller, checks.model_name(asked.text("name")))
        return {}

    @routes.post("registered-models/set-tag", "submit", readers_tags=(READERS_TAG,))
    async def set_tag(asked: Asked) -> Any:
        name, tag = checks.model_name(asked.text("name")), {asked.text("key"): asked.some_text("value") or ""}
        await models.describe(asked.caller, name, Wanted(tags=checks.tags(tag)))
        return {}

    @routes.delete("registered-models/delete-tag", "submit")
    async def delete_tag(asked: Asked) -> Any:
        name, key = checks.model_name(asked.text("name")), checks.key(asked.text("key"))
        await models.describe(asked.caller, name, Wanted(tags={key: None}))
        return {}

    async def get_latest_versions(asked: Asked) -> Any:
        found = await models.get(asked.caller, checks.model_name(asked.text("name")))
        wanted = {checks.stage_shown(checks.stage(stage)) for stage in asked.texts("stages")}
        newest = shapes.registered_model(found).get("latest_versions", [])
        kept = [version for version in newest if not wanted or version["current_stage"] in wanted]
        return {"model_versions": kept} if kept else {}

    routes.get("registered-models/get-latest-versions", "read")(get_latest_versions)
    routes.post("registered-models/get-latest-versions", "read")(get_latest_versions)


def _versions(routes: Routes, models: Models, sources: Sources) -> None:
    @routes.post("model-versions/create", "submit")
    async def create(asked: Asked) -> Any:
        name, source = checks.model_name(asked.text("name")), asked.text("source")
        tags = checks.tags(asked.pairs())
        given = Given(source, asked.some_text("run_id") or None, asked.some_text("model_id") or None)
        held: Held | None = None
        if tags.get(IS_PROMPT, "").lower() == "true":
            if source not in PLACEHOLDERS:
                raise wrong(f"Invalid prompt source: '{source[:200]}'. Prompt sources must use an MLflow placeholder.")
        elif given.model_id is not None or not source.startswith(ELSEWHERE):
            given = await sources.checked(asked.caller, given)
            held = await sources.held(asked.caller, given)
        else:
            check_address(source)
        wanted = NewVersion(
            source=given.source,
            run_id=given.run_id,
            run_link=asked.some_text("run_link") or None,
            model_id=given.model_id,
            tags=tags,
            description=checks.description(asked.some_text("description")),
            held=held,
        )
        made = await models.register(asked.caller, name, wanted)
        if given.model_id is not None:
            await sources.registered(asked.caller, given.model_id, name, made.version.ref.version)
        return {"model_version": shapes.model_version(made)}

    @routes.get("model-versions/get", "read")
    async def get(asked: Asked) -> Any:
        name, number = _named(asked)
        return {"model_version": shapes.model_version(await models.version(asked.caller, name, number))}

    @routes.patch("model-versions/update", "submit")
    async def update(asked: Asked) -> Any:
        name, number = _named(asked)
        wanted = Wanted(description=checks.description(asked.some_text("description")))
        found = await models.describe_version(asked.caller, name, number, wanted)
        return {"model_version": shapes.model_version(found)}

    @routes.delete("model-versions/delete", "move")
    async def delete(asked: Asked) -> Any:
        await models.delete_version(asked.caller, *_named(asked))
        return {}

    @routes.post("model-versions/set-tag", "submit", readers_tags=(READERS_TAG,))
    async def set_tag(asked: Asked) -> Any:
        name, number = _named(asked)
        tag = {asked.text("key"): asked.some_text("value") or ""}
        await models.describe_version(asked.caller, name, number, Wanted(tags=checks.tags(tag)))
        return {}

    @routes.delete("model-versions/delete-tag", "submit")
    async def delete_tag(asked: Asked) -> Any:
        name, number = _named(asked)
        key = checks.key(asked.text("key"))
        await models.describe_version(asked.caller, name, number, Wanted(tags={key: None}))
        return {}

    @routes.get("model-versions/get-download-uri", "read")
    async def download_uri(asked: Asked) -> Any:
        name, number = _named(asked)
        found = shapes.model_version(await models.version(asked.caller, name, number))
        return {"artifact_uri": await sources.location(asked.caller, found["source"])}


def _pointers(routes: Routes, models: Models) -> None:
    @routes.post("registered-models/alias", "move")
    async def set_alias(asked: Asked) -> Any:
        name, number = _named(asked)
        await models.point(asked.caller, name, checks.alias(asked.text("alias")), number)
        return {}

    @routes.delete("registered-models/alias", "move")
    async def delete_alias(asked: Asked) -> Any:
        name = checks.model_name(asked.text("name"))
        await models.point(asked.caller, name, checks.alias(asked.text("alias"), reserved=False), None)
        return {}

    @routes.get("registered-models/alias", "read")
    async def by_alias(asked: Asked) -> Any:
        name, alias = checks.model_name(asked.text("name")), checks.alias(asked.text("alias"), reserved=False)
        if alias.lower() == "latest":
            found = await models.newest(asked.caller, name)
        else:
            found = await models.aliased(asked.caller, name, alias)
        return {"model_version": shapes.model_version(found)}

    @routes.post("model-versions/transition-stage", "move")
    async def transition(asked: Asked) -> Any:
        name, number = _named(asked)
        stage = cast(Stage, checks.stage(asked.text("stage")))
        archive = asked.flag("archive_existing_versions")
        if archive and stage not in ("staging", "production"):
            raise wrong("Versions in a stage are archived with a move to Staging or Production alone")
        found = await models.transition(asked.caller, name, number, stage, archive_existing=archive)
        return {"model_version": shapes.model_version(found)}


def _named(asked: Asked) -> tuple[str, int]:
    return checks.model_name(asked.text("name")), checks.version(asked.text("version"))
