"""Minimisation: what a row keeps of a request, decided by the group's field rules and by the request's own consent.

Applied before a row is rendered, so that nothing else ever reaches the disk. A rule never costs a row: where it cannot
be applied its field is dropped, and that is counted.
"""

from services.router.gateway.minimisation.keys import GroupKeys
from services.router.gateway.minimisation.minimiser import CONSENT_ALONE, CONSENT_HEADER, Minimiser, Record

__all__ = ["CONSENT_ALONE", "CONSENT_HEADER", "GroupKeys", "Minimiser", "Record"]
