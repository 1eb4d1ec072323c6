"""The registry over HTTP: /registry/v1."""

from __future__ import annotations

from fastapi import APIRouter

from services.registry.api import assets, lineage, pointers, submissions
from services.registry.handlers import Handlers


def router(handlers: Handlers) -> APIRouter:
    """Every route."""
    routes = APIRouter()
    for part in (submissions, pointers, lineage, assets):
        routes.include_router(part.router(handlers))
    return routes
