"""What the routes of tracking share: pages, views of what is deleted or not, tags without one."""

from __future__ import annotations

from typing import Any

from services.registry.mlflow.asked import Asked
from services.registry.mlflow.errors import MlflowError, wrong
from shared.http import PageToken


def view(asked: Asked, name: str = "view_type") -> bool | None:
    views = {"ACTIVE_ONLY": False, "DELETED_ONLY": True, "ALL": None, "1": False, "2": True, "3": None}
    wanted = str(asked.fields.get(name) or "ACTIVE_ONLY")
    if asked.queried:
        wanted = asked.some_text(name) or "ACTIVE_ONLY"
    if wanted not in views:
        raise wrong(
            f"Invalid value '{wanted[:50]}' for parameter '{name}' supplied: one of ACTIVE_ONLY, DELETED_ONLY, ALL"
        )
    return views[wanted]


def offset_of(asked: Asked, token: PageToken) -> int:
    """Where a page begins. Raises INVALID_PARAMETER_VALUE for a token of another query."""
    values = token.read(asked.some_text("page_token") or None)
    if values is None:
        return 0
    if len(values) != 1 or type(values[0]) is not int or values[0] < 0:
        raise wrong("Invalid page token")
    return int(values[0])


def paged(asked: Asked, token: PageToken, found: list[Any], most: int) -> tuple[list[Any], dict[str, str]]:
    """A page of what was found, and the token of the next one."""
    offset = offset_of(asked, token)
    more = {"next_page_token": token.make([offset + most])} if len(found) > offset + most else {}
    return found[offset : offset + most], more


def without(tags: dict[str, str], key: str) -> dict[str, str]:
    if key not in tags:
        raise MlflowError("RESOURCE_DOES_NOT_EXIST", f"No tag with name: {key[:100]}")
    return {name: value for name, value in tags.items() if name != key}
