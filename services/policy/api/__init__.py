"""HTTP edge of the policy service: parse, authorize, call a use case, shape the answer."""

from __future__ import annotations

from fastapi import APIRouter

from services.policy.api import approvals, gates, ledger, waivers
from services.policy.handlers import Approvals, Gates, Ledger, Waivers


def router(gate_cases: Gates, approval_cases: Approvals, waiver_cases: Waivers, ledger_cases: Ledger) -> APIRouter:
    """Everything under /policy/v1."""
    whole = APIRouter(prefix="/policy/v1")
    whole.include_router(gates.router(gate_cases))
    whole.include_router(approvals.router(approval_cases, ledger_cases))
    whole.include_router(waivers.router(waiver_cases))
    whole.include_router(ledger.router(ledger_cases))
    return whole
