"""ETags: a change names the state that it was decided on, so that nobody's change is lost."""

from __future__ import annotations

from typing import Any

from shared.errors import PreconditionFailed, PreconditionRequired
from shared.ids import canonical, sha256


def etag(state: Any) -> str:
    """A strong ETag of a JSON state or a revision number."""
    return f'"{sha256(canonical(state))[7:39]}"'


def matches(if_match: str | None, current: str, *, required: bool = True) -> None:
    """Return when `If-Match` names the current state. Raises PreconditionRequired or PreconditionFailed."""
    if if_match is None:
        if required:
            raise PreconditionRequired()
        return
    candidates = {part.strip() for part in if_match.split(",")}
    if "*" not in candidates and current not in candidates:
        raise PreconditionFailed(f"If-Match names {if_match}, but the state is {current}", etag=current)
