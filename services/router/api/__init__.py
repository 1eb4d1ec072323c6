"""The router over HTTP: /router/v1."""

from __future__ import annotations

from fastapi import APIRouter

from services.router.api import comparisons, group_settings, groups, inferences, providers, ramps
from services.router.handlers import Comparisons, Deployments, Feedback, Groups, Inferences, Providers, Ramps, Sections


def router(
    deployments: Deployments,
    makes: Groups,
    reads: Inferences,
    hears: Feedback,
    compares: Comparisons,
    moves: Ramps,
    asks: Providers,
    tells: Sections,
) -> APIRouter:
    """Every route."""
    routes = APIRouter(prefix="/router/v1")
    routes.include_router(groups.router(deployments, makes))
    routes.include_router(inferences.router(reads, hears))
    routes.include_router(comparisons.router(compares))
    routes.include_router(ramps.router(moves))
    routes.include_router(providers.router(asks))
    routes.include_router(group_settings.router(tells))
    return routes
