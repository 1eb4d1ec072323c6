"""What the graph is loaded from; apart from `loading`, so that wiring it loads nothing of GraphQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.registry.beside.reading import Besides
from services.registry.search.engine import Engine
from services.registry.store import Store
from shared.clock import Clock


@dataclass(frozen=True, slots=True)
class Sources:
    """What loads: the registry's stores, and the queries of this package."""

    store: Store
    besides: Besides
    engine: Engine
    queries: Any
    clock: Clock
