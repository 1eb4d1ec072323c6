"""Calls to the services over HTTP: the key is sent, POSTs are idempotent, errors are what the server says."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import httpx
import uuid_utils

from mintmark.settings import Connection

TRIES = 4
LONGEST_WAIT_S = 5.0


class Problem(Exception):
    """The server refused: `code` is stable, `status` is HTTP's, `document` is the whole RFC 9457 problem."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or f"HTTP {status}"))
        self.status = status
        self.document = document

    @property
    def code(self) -> str:
        return str(self.document.get("code", "http"))


class Client:
    """A synchronous client of one installation; use it as a context manager."""

    def __init__(self, connection: Connection | None = None, *, timeout_s: float = 30.0) -> None:
        self.connection = connection or Connection.find()
        headers = {"authorization": f"Bearer {self.connection.api_key}"} if self.connection.api_key else {}
        self._http = httpx.Client(base_url=self.connection.url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at a path, e.g. `/registry/v1/assets/model/credit-pd`. Raises Problem."""
        return self.request("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """Send JSON; repeated by itself when the answer was lost, with effect once. Raises Problem."""
        headers.setdefault("idempotency-key", str(uuid_utils.uuid7()))
        return self.request("POST", path, json=body, headers=headers)

    def put(self, path: str, body: Any, **headers: str) -> Any:
        """Replace what is at a path; `if_match="…"` names the state it was decided on. Raises Problem."""
        return self.request(
            "PUT", path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """Any call; 503, and connections that fail, are tried again as long as the call is safe to repeat."""
        repeatable = method in ("GET", "PUT", "DELETE") or "idempotency-key" in arguments.get("headers", {})
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._http.request(method, path, **arguments)
            except httpx.TransportError:
                if attempt == TRIES or not repeatable:
                    raise
                time.sleep(min(0.2 * 2**attempt, LONGEST_WAIT_S))
                continue
            if answer.status_code == 503 and attempt < TRIES and repeatable:
                time.sleep(_wait_s(answer))
                continue
            return content(answer)
        raise AssertionError("unreachable")


def _wait_s(answer: httpx.Response) -> float:
    """As long as the server asks for, within bounds; a date is not looked at."""
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), LONGEST_WAIT_S) if asked.isdecimal() else 1.0


def content(answer: httpx.Response) -> Any:
    """What was answered: JSON, or text of another kind. Raises Problem for a refusal, and for what nobody here said."""
    if answer.is_error:
        raise Problem(answer.status_code, document_of(answer))
    kind = answer.headers.get("content-type", "")
    if not answer.is_success or "html" in kind:
        raise unreadable(answer)
    if "json" not in kind:
        return answer.text
    try:
        return answer.json()
    except ValueError:
        raise unreadable(answer) from None


def document_of(answer: httpx.Response) -> dict[str, Any]:
    """The problem that a refusal came with, or what else it said."""
    try:
        document = answer.json()
    except ValueError:
        document = {"detail": answer.text[:300]}
    return document if isinstance(document, dict) else {"detail": str(document)}


def unreadable(answer: httpx.Response) -> Problem:
    """As for a broken gateway, where something else than the server answered: a proxy's login page, a way to one."""
    said = repr(answer.text[:300])
    if answer.has_redirect_location:
        said = f"a redirect to {answer.headers['location'][:300]!r}"
    return Problem(502, {"code": "unreadable", "detail": f"{answer.url} did not answer as the server does, but {said}"})
