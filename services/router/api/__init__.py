"""The router over HTTP: /router/v1."""

from __future__ import annotations

from fastapi import APIRouter

from services.router.api import groups
from services.router.handlers import Deployments, Groups


def router(deployments: Deployments, handlers: Groups) -> APIRouter:
    """Every route."""
    routes = APIRouter(prefix="/router/v1")
    routes.include_router(groups.router(deployments, handlers))
    return routes
