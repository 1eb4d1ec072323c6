"""The registry's use cases: registering, moving pointers, following what others say, reading."""

from __future__ import annotations

from dataclasses import dataclass

from services.registry.handlers.artefacts import Artefacts
from services.registry.handlers.following import Following
from services.registry.handlers.pointers import Pointers
from services.registry.handlers.reading import Reading
from services.registry.handlers.registration import Registration


@dataclass(frozen=True, slots=True)
class Handlers:
    """Everything that an edge may ask for."""

    artefacts: Artefacts
    registration: Registration
    pointers: Pointers
    following: Following
    reading: Reading
