"""Keyset pages: an opaque token names the last row seen and is bound to the query that it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel

from shared.errors import Invalid

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """One page; `next_page_token` is absent on the last one."""

    items: list[T]
    next_page_token: str | None = None


class PageToken:
    """Makes and reads tokens for one query; a token of another query is refused, not misread."""

    def __init__(self, *query: Any) -> None:
        self._query = hashlib.sha256(orjson.dumps(query, default=str)).hexdigest()[:16]

    def make(self, after: Sequence[Any]) -> str:
        """The token that continues after a row with these key values."""
        return base64.urlsafe_b64encode(orjson.dumps([self._query, *after], default=str)).decode().rstrip("=")

    def read(self, token: str | None) -> list[Any] | None:
        """The key values to continue after; None for the first page. Raises Invalid."""
        if token is None:
            return None
        try:
            document = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        except (binascii.Error, ValueError):
            raise Invalid("page_token is not one that was given out here; start without it") from None
        if not isinstance(document, list) or not document or document[0] != self._query:
            raise Invalid("page_token belongs to another query; start without it")
        return document[1:]
