"""The HTTP edge that all services share: problems, limits, identity of the caller, idempotency, paging, ETags."""

from shared.http.callers import require
from shared.http.etags import etag, matches
from shared.http.paging import Page, PageToken

__all__ = ["Page", "PageToken", "etag", "matches", "require"]
