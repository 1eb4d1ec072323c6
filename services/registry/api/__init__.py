"""The registry over HTTP: /registry/v1."""

from __future__ import annotations

from fastapi import APIRouter

from services.registry.api import (
    assets,
    batch,
    export,
    foreign,
    graphql,
    imports,
    lineage,
    metadata,
    pointers,
    reuse,
    runs,
    search,
    submissions,
    supply,
)
from services.registry.handlers import Handlers


def router(handlers: Handlers) -> APIRouter:
    """Every route."""
    routes = APIRouter()
    for part in (
        search,
        runs,
        submissions,
        pointers,
        metadata,
        lineage,
        supply,
        reuse,
        imports,
        foreign,
        batch,
        export,
        graphql,
        assets,
    ):
        routes.include_router(part.router(handlers))
    return routes
