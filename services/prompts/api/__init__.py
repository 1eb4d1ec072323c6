"""HTTP of prompts: publish, read, compare, render, label."""

from __future__ import annotations

from fastapi import APIRouter

from services.prompts.api import evidence, importing, labels, prompts, proposals, snapshots, splits, usage
from services.prompts.api.parts import PREFIX
from services.prompts.handlers import Handlers
from shared.http.edge import StrictRoute

__all__ = ["PREFIX", "router"]


def router(handlers: Handlers) -> APIRouter:
    """`/prompts/v1`."""
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["prompts"])
    prompts.add(routes, handlers)
    labels.add(routes, handlers)
    splits.add(routes, handlers)
    usage.add(routes, handlers)
    snapshots.add(routes, handlers)
    proposals.add(routes, handlers)
    evidence.add(routes, handlers)
    importing.add(routes, handlers)
    return routes
