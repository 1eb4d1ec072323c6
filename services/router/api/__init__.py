"""The router over HTTP: /router/v1."""

from __future__ import annotations

from fastapi import APIRouter

from services.router.api import groups, inferences
from services.router.handlers import Deployments, Feedback, Groups, Inferences


def router(deployments: Deployments, makes: Groups, reads: Inferences, hears: Feedback) -> APIRouter:
    """Every route."""
    routes = APIRouter(prefix="/router/v1")
    routes.include_router(groups.router(deployments, makes))
    routes.include_router(inferences.router(reads, hears))
    return routes
