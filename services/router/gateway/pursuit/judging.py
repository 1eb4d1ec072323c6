"""What an attempt's outcome means: whether another attempt may help, and whether its target is at fault.

Another attempt is made for what says nothing about the request: no connection, a cut one, no answer in time, 502, 503,
504, 529 (Anthropic's 503) and 429. A model's own word (any other 4xx, 500) and garbage are answers: they would be the
same again, or were paid for.
"""

from __future__ import annotations

from services.router.errors import (
    ProviderAddressRefused,
    UpstreamError,
    UpstreamGarbageError,
    UpstreamKeyRefused,
    UpstreamRefused,
    UpstreamSaturated,
    UpstreamTimeoutError,
)
from shared.errors import MintmarkError

RETRIED = frozenset((429, 502, 503, 504, 529))
FINAL = (UpstreamGarbageError, UpstreamKeyRefused, ProviderAddressRefused)


def may_retry(error: MintmarkError) -> bool:
    if isinstance(error, UpstreamRefused):
        return error.upstream_status in RETRIED
    if isinstance(error, UpstreamTimeoutError | UpstreamSaturated):
        return True
    return isinstance(error, UpstreamError) and not isinstance(error, FINAL)


def is_targets_fault(error: MintmarkError) -> bool:
    """Whether the breaker counts it. A target that limits its rate is well; other 4xx are the request's fault."""
    return not isinstance(error, UpstreamRefused) or error.upstream_status >= 500
