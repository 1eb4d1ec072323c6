"""What callers send in paths and queries, bounded so that Postgres can take it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime

from shared.errors import Invalid

MOST_ID = 2**62


def _plain(text: str) -> str:
    if "\x00" in text:
        raise ValueError("it holds a NUL character, which no field takes")
    return text


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is outside of the calendar") from None


Text = Annotated[str, AfterValidator(_plain)]
Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]
VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]


def last_id(values: list[Any] | None) -> int | None:
    """The row that a page token continues after; None for the first page. Raises Invalid for a made-up token."""
    if values is None:
        return None
    if len(values) != 1 or type(values[0]) is not int or not 0 <= values[0] <= MOST_ID:
        raise Invalid("page_token is not one that was given out here; start without it")
    return values[0]


def last_dataset(values: list[Any] | None) -> tuple[datetime, str, int] | None:
    """The dataset version that a page token continues after. Raises Invalid for a made-up token."""
    if values is None:
        return None
    try:
        at, urn, version = values
        if type(urn) is str and "\x00" not in urn and type(version) is int and 0 < version < 2**31:
            return _in_utc(datetime.fromisoformat(at)), urn, version
    except (ValueError, TypeError):
        pass
    raise Invalid("page_token is not one that was given out here; start without it")
