"""Rows of schema `prompts` and what they mean."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from services.prompts.store.evidence import Binding, Candidate, Evidence, EvidenceStore
from services.prompts.store.labels import LabelMove, Labels
from services.prompts.store.listing import Filter, Listed, Listing
from services.prompts.store.live import LiveCandidate, LiveEvidence, LiveStore
from services.prompts.store.proposals import Comparison, Proposal, Proposals, Step
from services.prompts.store.splits import Split, Splits
from services.prompts.store.standings import Standings
from services.prompts.store.usage import Fetcher, Usage, Usages
from services.prompts.store.versions import Prompt, PromptVersion, Versions
from shared.db.database import Database, Transaction, literal


def reading(database: Database, workspace: str) -> AbstractAsyncContextManager[Transaction]:
    """A transaction that changes nothing, and so takes no Idempotency-Key: there is no effect that could be lost."""
    opening = f"BEGIN READ ONLY; SELECT set_config('mintmark.workspace', {literal(workspace)}, true)"
    return database.begin_with(opening, workspace)


class Store:
    """Every query of the service. Methods take the transaction, whose workspace they stay in."""

    def __init__(self, queries: Any) -> None:
        self.versions = Versions(queries)
        self.labels = Labels(queries)
        self.listing = Listing(queries)
        self.splits = Splits(queries)
        self.standings = Standings(queries)
        self.usages = Usages(queries)
        self.proposals = Proposals(queries)
        self.evidence = EvidenceStore(queries)
        self.live = LiveStore(queries)


__all__ = [
    "Binding",
    "Candidate",
    "Comparison",
    "Evidence",
    "Fetcher",
    "Filter",
    "LabelMove",
    "Listed",
    "LiveCandidate",
    "LiveEvidence",
    "Prompt",
    "PromptVersion",
    "Proposal",
    "Split",
    "Step",
    "Store",
    "Usage",
    "reading",
]
