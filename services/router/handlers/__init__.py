"""Use cases of the router's control plane; one transaction each: read, decide, write, emit."""

from __future__ import annotations

from services.router.handlers.deployments import Deployments
from services.router.handlers.groups import Groups

__all__ = ["Deployments", "Groups"]
