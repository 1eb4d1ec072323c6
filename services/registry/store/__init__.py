"""Rows of the registry's schema as domain values, and back."""

from __future__ import annotations

from typing import Any

from services.registry.datasets.store import DatasetStore
from services.registry.store.graph import Graph
from services.registry.store.pointers import Move, Pointers
from services.registry.store.submissions import Submission, Submissions
from services.registry.store.tracking import Tracking
from services.registry.store.versions import AtOnce, Versions
from shared.db.queries import load


class Store:
    """Every query of the service. Methods take the transaction, whose workspace they stay in."""

    def __init__(self, queries: Any) -> None:
        self.versions = Versions(queries)
        self.submissions = Submissions(queries)
        self.pointers = Pointers(queries)
        self.graph = Graph(queries)
        self.datasets = DatasetStore(load("services.registry.datasets"))
        self.tracking = Tracking(load("services.registry.store.tracking"))


__all__ = ["AtOnce", "Move", "Store", "Submission"]
