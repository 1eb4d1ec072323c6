"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import orjson

from services.router.gateway.conversation import JsonObject
from services.router.gateway.protocols.base import status_of
from shared.errors import MintmarkError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def value(error: MintmarkError, request_id: str) -> JsonObject:
    status = status_of(error)
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    found: JsonObject = {
        "message": error.message,
        "type": kind,
        "param": error.extra.get("field"),
        "code": error.code,
    }
    if request_id:
        found["request_id"] = request_id
    return {"error": found}


def body(error: MintmarkError, request_id: str) -> bytes:
    return orjson.dumps(value(error, request_id))
