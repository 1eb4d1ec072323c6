"""Which grains of folded sums make up a span of time: few rows, whatever its length."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER, MINUTE, HOUR, DAY = 0, 1, 60, 1440
GRAINS = (MINUTE, HOUR, DAY, FOREVER)
"""Every addition is folded into each of them."""

MINUTES_KEPT = timedelta(days=8)
HOURS_KEPT = timedelta(days=90)


class Span(NamedTuple):
    """Sums of one grain that start in [since, until)."""

    grain: int
    since: datetime
    until: datetime


def floor(moment: datetime, grain: int) -> datetime:
    """The start of the grain that the moment lies in."""
    if grain == FOREVER:
        return EPOCH
    width = timedelta(minutes=grain)
    return EPOCH + (moment - EPOCH) // width * width


def kept(moment: datetime, now: datetime) -> datetime:
    """The moment, back to the start of the finest grain that is still kept of its time."""
    finest = MINUTE if moment >= now - MINUTES_KEPT else HOUR if moment >= now - HOURS_KEPT else DAY
    return floor(moment, finest)


def cover(since: datetime, until: datetime) -> list[Span]:
    """Spans that make up [since, until), the coarsest that fit; both ends must be starts of minutes."""
    spans: list[Span] = []
    at = since
    for grain, wider in ((MINUTE, HOUR), (HOUR, DAY)):
        edge = min(until, ceiling(at, wider))
        end = floor(edge, grain)
        if end > at:
            spans.append(Span(grain, at, end))
            at = end
    for grain in (DAY, HOUR, MINUTE):
        end = floor(until, grain)
        if end > at:
            spans.append(Span(grain, at, end))
            at = end
    return spans


def ceiling(moment: datetime, grain: int) -> datetime:
    """The next start of the grain, or the moment itself where it is one."""
    start = floor(moment, grain)
    return start if start == moment else start + timedelta(minutes=grain)
