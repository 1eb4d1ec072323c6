"""Our values as MLflow's JSON: versions are texts, times are milliseconds, what is empty is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.registry.handlers.models import ModelStanding
from services.registry.handlers.reading import Standing
from services.registry.mlflow.checks import stage_shown

IS_PROMPT = "mlflow.prompt.is_prompt"


def ms(at: datetime | None) -> int | None:
    """Milliseconds since 1970."""
    return None if at is None else int(at.timestamp() * 1000)


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]


def model_version(standing: Standing) -> dict[str, Any]:
    version = standing.version
    source: dict[str, str] = version.content.get("source") or {}
    artefact = version.content["artefact"]
    tags = dict(version.tags)
    if version.content["kind"] == "prompt":
        tags.setdefault(IS_PROMPT, "true")
    found: dict[str, Any] = {
        "name": version.title,
        "version": str(version.ref.version),
        "creation_timestamp": ms(version.registered_at),
        "last_updated_timestamp": ms(version.updated_at),
        "user_id": version.author.id,
        "current_stage": stage_shown(standing.stage),
        "description": version.description,
        "source": source.get("uri") or (f"mintmark:/{artefact['digest']}" if artefact else "mintmark:/"),
        "run_id": version.content["training"]["run_id"] or "",
        "status": "READY",
        "run_link": source.get("run_link", ""),
    }
    if tags:
        found["tags"] = pairs(tags)
    if standing.aliases:
        found["aliases"] = list(standing.aliases)
    if "model_id" in source:
        found["model_id"] = source["model_id"]
    return found


def registered_model(found: ModelStanding) -> dict[str, Any]:
    asset = found.asset
    tags = dict(asset.tags)
    if asset.kind == "prompt":
        tags.setdefault(IS_PROMPT, "true")
    shown: dict[str, Any] = {
        "name": asset.title,
        "creation_timestamp": ms(asset.created_at),
        "last_updated_timestamp": ms(asset.updated_at),
    }
    if asset.description:
        shown["description"] = asset.description
    newest: dict[str, Standing] = {}
    for standing in sorted(found.newest, key=lambda one: one.version.ref.version):
        newest[stage_shown(standing.stage)] = standing
    if newest:
        shown["latest_versions"] = [model_version(standing) for standing in newest.values()]
    if tags:
        shown["tags"] = pairs(tags)
    if found.aliases:
        shown["aliases"] = [{"alias": move.name, "version": str(move.after)} for move in found.aliases]
    return shown


def number_shown(value: float) -> float | str:
    """A float as protobuf's JSON has it."""
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
