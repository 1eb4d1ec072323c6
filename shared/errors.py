"""One tree of errors. The docstring is the default message; `code` is stable and may be relied upon by clients."""

from __future__ import annotations

from typing import Any, ClassVar


class MintmarkError(Exception):
    """Something went wrong that has no better name."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    """What HTTP answers; named here once, so that no handler thinks about HTTP."""

    def __init__(self, message: str | None = None, **extra: Any) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.extra = extra

    @property
    def message(self) -> str:
        return str(self)


class Refused(MintmarkError):
    """The request is understood and will not be done."""

    code = "refused"
    status = 422


class Invalid(Refused):
    """The data does not have the form that it must have."""

    code = "invalid"
    status = 422


class Malformed(Refused):
    """This is not valid JSON."""

    code = "malformed"
    status = 400


class TooLarge(Refused):
    """The body is larger than is taken here."""

    code = "too-large"
    status = 413


class NotFound(Refused):
    """There is no such thing."""

    code = "not-found"
    status = 404


class Conflict(Refused):
    """It was changed in the meantime; read it again and decide anew."""

    code = "conflict"
    status = 409


class PreconditionFailed(Refused):
    """If-Match does not name the present state; read it again and decide anew."""

    code = "precondition-failed"
    status = 412


class PreconditionRequired(Refused):
    """Send If-Match with the ETag that you read, so that nobody's change is lost."""

    code = "precondition-required"
    status = 428


class Unauthenticated(Refused):
    """Send a valid API key or token as `Authorization: Bearer …`."""

    code = "unauthenticated"
    status = 401


class Forbidden(Refused):
    """The policies in force do not let you do that."""

    code = "forbidden"
    status = 403


class Unavailable(MintmarkError):
    """Something that this needs does not answer just now; try again."""

    code = "unavailable"
    status = 503


class Early(MintmarkError):
    """The event speaks of something that is not known here yet; it is tried again later."""

    code = "early"
    status = 409


class IntegrityFailed(Refused):
    """Bytes and digest do not match."""

    code = "digest-mismatch"
    status = 422


class SignatureRefused(Refused):
    """The signature does not prove what it must."""

    code = "signature-refused"
    status = 403
