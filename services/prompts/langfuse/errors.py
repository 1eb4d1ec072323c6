"""Refusals in Langfuse's shape: `{"error": "LangfuseNotFoundError", "message": "…"}`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from shared.errors import MintmarkError
from shared.http.edge import StrictRoute

NAMES = {
    400: "InvalidRequestError",
    401: "UnauthorizedError",
    403: "ForbiddenError",
    404: "LangfuseNotFoundError",
    405: "MethodNotAllowedError",
    409: "LangfuseConflictError",
    413: "PayloadTooLargeError",
    503: "ServiceUnavailableError",
}


class NotSupported(MintmarkError):
    """This part of Langfuse's API is not answered here; see docs/how-to/from-langfuse.md."""

    code = "not-supported"
    status = 404


class MayNotDelete(MintmarkError):
    """Versions are immutable and stay: take the labels away with the prompts API instead."""

    code = "not-deleted"
    status = 405


def refusal(error: MintmarkError) -> JSONResponse:
    """The answer for an error of ours; what is invalid is 400 with them."""
    status = 400 if error.status == 422 else error.status
    named = {"error": NAMES.get(status, "InternalServerError"), "message": error.message, "code": error.code}
    return JSONResponse(named, status, {"retry-after": "1"} if status == 503 else None)


class LangfuseRoute(StrictRoute):
    """Routes whose refusals have that shape."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def in_their_shape(request: Request) -> Response:
            try:
                answer: Response = await handle(request)
                return answer
            except MintmarkError as error:
                return refusal(error)
            except RequestValidationError as error:
                fields = [f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in error.errors()[:3]]
                body = {"error": NAMES[400], "message": f"Invalid request data: {'; '.join(fields)}"}
                return JSONResponse(body, 400)

        return in_their_shape
