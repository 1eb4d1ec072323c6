"""Errors as MLflow's client reads them: `error_code`, which it raises, and the HTTP status that goes with it."""

from __future__ import annotations

from typing import Any

import orjson

from services.registry.errors import NameTaken
from shared.errors import (
    Conflict,
    Forbidden,
    MintmarkError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

STATUSES = {
    "INVALID_PARAMETER_VALUE": 400,
    "BAD_REQUEST": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ENDPOINT_NOT_FOUND": 404,
    "RESOURCE_CONFLICT": 409,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
}
CLASSES = {"RESOURCE_DOES_NOT_EXIST": "RESOURCE_NOT_FOUND", "INTERNAL_ERROR": "CLIENT_INTERNAL_ERROR"}

# The first that fits; what is refused for another reason was asked wrongly.
CODES: tuple[tuple[type[MintmarkError], str], ...] = (
    (NameTaken, "RESOURCE_ALREADY_EXISTS"),
    (NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (Unauthenticated, "UNAUTHENTICATED"),
    (Forbidden, "PERMISSION_DENIED"),
    (Conflict, "RESOURCE_CONFLICT"),
    (Unavailable, "TEMPORARILY_UNAVAILABLE"),
)


class MlflowError(MintmarkError):
    """An error that MLflow has a code for."""

    code = "mlflow"

    def __init__(self, error_code: str, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


def wrong(message: str) -> MlflowError:
    """Something was asked wrongly."""
    return MlflowError("INVALID_PARAMETER_VALUE", message)


def answer_of(error: MintmarkError) -> tuple[int, bytes]:
    """Status and body of an error."""
    if isinstance(error, MlflowError):
        code = error.error_code
    elif isinstance(error, TooLarge):
        return 413, _body("INVALID_PARAMETER_VALUE", error.message)
    elif error.status >= 500 and not isinstance(error, Unavailable):
        code = "INTERNAL_ERROR"
    else:
        code = next((code for kind, code in CODES if isinstance(error, kind)), "INVALID_PARAMETER_VALUE")
    return STATUSES[code], _body(code, error.message)


def _body(code: str, message: str) -> bytes:
    body: dict[str, Any] = {
        "error_code": code,
        "message": message,
        "sqlstate": "XXM00" if code == "INTERNAL_ERROR" else "KAM00",
        "error_class": CLASSES.get(code, code),
    }
    return orjson.dumps(body)
