"""The little of a request that routing needs, since passing through should cost no more."""

from __future__ import annotations

from services.router.errors import FieldRefused
from services.router.gateway.protocols.base import Asked, ClientProtocol
from services.router.gateway.protocols.reading import parse


def opened(protocol: ClientProtocol, body: bytes, content: str) -> Asked:
    """A request with `model`, `stream` and a `content` field that must be there. Raises Malformed, FieldRefused."""
    value = parse(body)
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise FieldRefused("model", "must be the name of a model group" if "model" in value else "is missing")
    stream = value.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise FieldRefused("stream", "must be true or false")
    found = value.get(content)
    if found is None:
        raise FieldRefused(content, "is missing")
    if not isinstance(found, list | str) or not found:
        raise FieldRefused(content, "must not be empty")
    return Asked(protocol, body, value, model, bool(stream))
