"""Work left for a worker still belongs to the same story: its trace and cause go along with the row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shared.events import cause
from shared.telemetry import traces


def story() -> dict[str, str | None]:
    """What to keep with the work: columns correlation_id, causation_id and traceparent."""
    why = cause.current.get()
    return {
        "correlation_id": why.correlation_id,
        "causation_id": why.causation_id,
        "traceparent": traces.traceparent(),
    }


@contextmanager
def continuing(name: str, row: Mapping[str, Any]) -> Iterator[None]:
    """Go on with what `story` kept: events emitted inside have the same trace and correlation."""
    token = cause.current.set(cause.Cause(row["correlation_id"], row["causation_id"]))
    try:
        with traces.span(name, parent=row["traceparent"]):
            yield
    finally:
        cause.current.reset(token)
