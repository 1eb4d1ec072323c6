"""The groups that a caller may ask, as `GET /v1/models` lists them to OpenAI's clients and to Anthropic's.

Both ask the same path; Anthropic's name their API version in a header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs

import orjson

from services.router.gateway.conversation import JsonObject

ANTHROPIC_PAGE = 20
ANTHROPIC_PAGE_MOST = 1000


@dataclass(frozen=True, slots=True)
class GroupListing:
    name: str
    created: datetime


def models_page(groups: Sequence[GroupListing], headers: Mapping[bytes, bytes], query: bytes = b"") -> bytes:
    """The body of `GET /v1/models`. `groups` are the caller's, ordered by name; `query` is what follows `?`."""
    if b"anthropic-version" not in headers:
        return orjson.dumps({"object": "list", "data": [_openai(group) for group in groups]})
    asked = parse_qs(query.decode("ascii", "replace"))
    names = [group.name for group in groups]
    begin, end = 0, len(groups)
    if (after := asked.get("after_id", [""])[-1]) in names:
        begin = names.index(after) + 1
    if (before := asked.get("before_id", [""])[-1]) in names:
        end = names.index(before)
    limit = asked.get("limit", [""])[-1]
    size = min(max(int(limit), 1), ANTHROPIC_PAGE_MOST) if limit.isascii() and limit.isdigit() else ANTHROPIC_PAGE
    page = groups[begin:end][-size:] if before else groups[begin:end][:size]
    more = len(groups[begin:end]) > len(page)
    return orjson.dumps(
        {
            "data": [_anthropic(group) for group in page],
            "has_more": more,
            "first_id": page[0].name if page else None,
            "last_id": page[-1].name if page else None,
        }
    )


def model(group: GroupListing, headers: Mapping[bytes, bytes]) -> bytes:
    """The body of `GET /v1/models/{group}`."""
    return orjson.dumps(_anthropic(group) if b"anthropic-version" in headers else _openai(group))


def _openai(group: GroupListing) -> JsonObject:
    return {"id": group.name, "object": "model", "created": int(group.created.timestamp()), "owned_by": "mintmark"}


def _anthropic(group: GroupListing) -> JsonObject:
    created = group.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": group.name,
        "display_name": group.name,
        "created_at": created,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
    }
