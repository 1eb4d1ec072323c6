"""The router over HTTP: /router/v1."""

from __future__ import annotations

from fastapi import APIRouter

from services.router.api import (
    batches,
    comparisons,
    group_settings,
    groups,
    inferences,
    providers,
    ramps,
    tables,
)
from services.router.handlers import (
    Batches,
    Comparisons,
    Deployments,
    Feedback,
    Groups,
    Inferences,
    Providers,
    Ramps,
    Sections,
)
from services.router.handlers.archives import Archives
from services.router.handlers.deletions import Deletions
from services.router.handlers.erasures import Erasures


def router(
    deployments: Deployments,
    makes: Groups,
    reads: Inferences,
    hears: Feedback,
    compares: Comparisons,
    moves: Ramps,
    asks: Providers,
    tells: Sections,
    works: Batches,
    archives: Archives,
    erasures: Erasures,
    deletions: Deletions,
) -> APIRouter:
    """Every route."""
    routes = APIRouter(prefix="/router/v1")
    routes.include_router(groups.router(deployments, makes))
    routes.include_router(inferences.router(reads, hears))
    routes.include_router(comparisons.router(compares))
    routes.include_router(ramps.router(moves))
    routes.include_router(providers.router(asks))
    routes.include_router(group_settings.router(tells))
    routes.include_router(tables.router(archives, erasures, deletions))
    routes.include_router(batches.router(works))
    return routes
