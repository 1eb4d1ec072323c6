"""A request's trace: the caller's own, or a new one (W3C Trace Context)."""

from __future__ import annotations

import re

TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traced(traceparent: bytes | None, raw_id: bytes) -> tuple[bytes, str]:
    """The traceparent to pass on and its trace id; of a new one that is the request's id."""
    if traceparent is not None and TRACEPARENT.fullmatch(traceparent):
        return traceparent, traceparent[3:35].decode()
    trace_id = raw_id.hex()
    return f"00-{trace_id}-{trace_id[16:]}-01".encode(), trace_id
