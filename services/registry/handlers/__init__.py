"""The registry's use cases: registering, moving pointers, following what others say, reading, lineage."""

from __future__ import annotations

from dataclasses import dataclass

from services.registry.graphql.answering import Answering
from services.registry.handlers.artefacts import Artefacts
from services.registry.handlers.batches import Batches
from services.registry.handlers.catalog import Catalog
from services.registry.handlers.exporting import Exporting
from services.registry.handlers.files import TrackedFiles
from services.registry.handlers.following import Following
from services.registry.handlers.foreign import Foreign
from services.registry.handlers.imported_runs import ImportedRuns
from services.registry.handlers.imports import Imports
from services.registry.handlers.lineage import Lineages
from services.registry.handlers.models import Models
from services.registry.handlers.pointers import Pointers
from services.registry.handlers.reading import Reading
from services.registry.handlers.registration import Registration
from services.registry.handlers.searching import Searching
from services.registry.handlers.supply import Supply
from services.registry.handlers.tracking import Tracking
from services.registry.reuse.bindings import Bindings
from services.registry.reuse.intents import Intents


@dataclass(frozen=True, slots=True)
class Handlers:
    """Everything that an edge may ask for."""

    artefacts: Artefacts
    registration: Registration
    pointers: Pointers
    following: Following
    reading: Reading
    catalog: Catalog
    lineage: Lineages
    supply: Supply
    models: Models
    graphql: Answering
    batches: Batches
    exporting: Exporting
    intents: Intents
    bindings: Bindings
    imports: Imports
    imported_runs: ImportedRuns
    tracking: Tracking
    files: TrackedFiles
    searching: Searching
    foreign: Foreign
