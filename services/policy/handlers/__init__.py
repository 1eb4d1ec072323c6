"""Use cases of the policy service; one transaction each: read, decide, write, emit."""

from __future__ import annotations

from services.policy.handlers.approvals import Approvals
from services.policy.handlers.gates import Gates
from services.policy.handlers.ledger import Ledger
from services.policy.handlers.waivers import Waivers

__all__ = ["Approvals", "Gates", "Ledger", "Waivers"]
