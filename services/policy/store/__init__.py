"""Rows of the policy schema as values, and back."""

from __future__ import annotations

from services.policy.store.decisions import Approval, Asset, Dataset, Row, Store, Verdict
from services.policy.store.ledger import LedgerStore
from services.policy.store.waivers import Status, Waiver, WaiverStore

__all__ = ["Approval", "Asset", "Dataset", "LedgerStore", "Row", "Status", "Store", "Verdict", "Waiver", "WaiverStore"]
