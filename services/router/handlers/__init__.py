"""Use cases of the router's control plane; one transaction each: read, decide, write, emit."""

from __future__ import annotations

from services.router.handlers.batches import Batches
from services.router.handlers.comparisons import Comparisons
from services.router.handlers.deployments import Deployments
from services.router.handlers.feedback import Feedback
from services.router.handlers.groups import Groups
from services.router.handlers.inferences import Inferences
from services.router.handlers.providers import Providers
from services.router.handlers.ramps import Ramps
from services.router.handlers.sections import Sections

__all__ = [
    "Batches",
    "Comparisons",
    "Deployments",
    "Feedback",
    "Groups",
    "Inferences",
    "Providers",
    "Ramps",
    "Sections",
]
