"""Windows of time that caps count in: fixed ones of so many seconds, days and calendar months, all UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

Period = Literal["day", "month"]


def window_of(now_s: float, length: int | Period) -> tuple[int, int]:
    """When the window around a moment began and when it ends, in Unix seconds."""
    if isinstance(length, int):
        start = int(now_s) // length * length
        return start, start + length
    now = datetime.fromtimestamp(now_s, UTC)
    start_of = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if length == "month":
        start_of = start_of.replace(day=1)
        end = (start_of + timedelta(days=32)).replace(day=1)
    else:
        end = start_of + timedelta(days=1)
    return int(start_of.timestamp()), int(end.timestamp())
