"""Errors as RFC 9457 problems: `type`, `title`, `status`, `detail` and a `code` that stays the same."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from shared.errors import Invalid, MintmarkError, NotFound
from shared.telemetry import traces

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


def problem(error: MintmarkError, instance: str = "") -> JSONResponse:
    """The answer for an error."""
    title = (type(error).__doc__ or error.code).strip().splitlines()[0]
    body: dict[str, Any] = {
        "type": f"urn:mintmark:problem:{error.code}",
        "title": title,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        **({"instance": instance} if instance else {}),
        **error.extra,
    }
    parent = traces.traceparent()
    if parent is not None:
        body["trace_id"] = traces.trace_id(parent)
    headers = {"retry-after": "1"} if error.status == 503 else {}
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="mintmark"'
    return JSONResponse(body, error.status, headers, MEDIA_TYPE)


class MethodNotAllowed(MintmarkError):
    """This address does not take that method."""

    code = "method-not-allowed"
    status = 405


def install(app: FastAPI) -> None:
    """Every error of the app becomes a problem."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, MintmarkError)
        return problem(error, request.url.path)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = [
            {
                "field": ".".join(str(part) for part in entry["loc"]),
                "reason": str(entry["msg"]).removeprefix("Value error, "),
            }
            for entry in error.errors()
        ]
        sentence = "; ".join(f"{entry['field']}: {entry['reason']}" for entry in found[:3])
        return problem(Invalid(sentence, errors=found), request.url.path)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, MintmarkError):  # FastAPI wraps what reading a body raises
            return problem(error.__cause__, request.url.path)
        if error.status_code == 404:
            return problem(
                NotFound(f"there is nothing at {request.url.path}; /openapi.json lists what is"), request.url.path
            )
        if error.status_code == 405:
            return problem(MethodNotAllowed(), request.url.path)
        return JSONResponse(
            {"type": "about:blank", "status": error.status_code, "detail": str(error.detail), "code": "http"},
            error.status_code,
            media_type=MEDIA_TYPE,
        )

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", extra={"path": request.url.path}, exc_info=error)
        return problem(MintmarkError("something failed here; the trace id finds it in the logs"), request.url.path)

    app.add_exception_handler(MintmarkError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


__all__ = ["install", "problem"]
