"""The use cases of prompts: publishing, reading, moving labels, rendering, following what others say."""

from __future__ import annotations

from dataclasses import dataclass

from services.prompts.handlers.evidence import EvidenceHandlers
from services.prompts.handlers.following import Following
from services.prompts.handlers.importing import Importing
from services.prompts.handlers.labels import Labels
from services.prompts.handlers.proposals import Proposals
from services.prompts.handlers.publishing import Publishing
from services.prompts.handlers.reading import Reading
from services.prompts.handlers.snapshots import Snapshots
from services.prompts.handlers.splits import Splits
from services.prompts.handlers.usage import Usages


@dataclass(frozen=True, slots=True)
class Handlers:
    """Everything that an edge may ask for."""

    publishing: Publishing
    labels: Labels
    reading: Reading
    splits: Splits
    usages: Usages
    snapshots: Snapshots
    proposals: Proposals
    evidence: EvidenceHandlers
    following: Following
    importing: Importing
