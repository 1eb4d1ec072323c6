"""Asking a server that may be slow, broken or endless: bounded in time, bytes and pages."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import urlsplit, urlunsplit

import httpx

from mintmark.importers.found import SourceFailed

TRIES = 4
MOST_BYTES = 256 * 1024 * 1024
MOST_PAGES = 100_000
MOST_EMPTY_PAGES = 3
SPOOL_BYTES = 8 * 1024 * 1024


def plain_address(url: str) -> str:
    """An address without a password, a query and a closing slash: what a source is known by."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http(s) address")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, host + port, parts.path.rstrip("/"), "", ""))


class Remote:
    """GETs and POSTs that only read; each is tried a few times while the server is down or too busy."""

    def __init__(self, url: str, *, headers: dict[str, str], auth: tuple[str, str] | None, timeout_s: float) -> None:
        plain = plain_address(url)
        parts = urlsplit(url)
        if parts.username and auth is None:
            auth = (parts.username, parts.password or "")
        self.name = plain
        # Redirects are not followed: the credentials are for this address.
        self._http = httpx.Client(base_url=plain, headers=headers, auth=auth, timeout=timeout_s)

    def ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """A JSON object. Raises SourceFailed."""
        with self._answer(method, path, **arguments) as answer:
            body = bytearray()
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise SourceFailed(f"{path} answers with more than {MOST_BYTES} bytes")
        try:
            document = json.loads(bytes(body))
        except (ValueError, RecursionError):
            raise SourceFailed(f"{path} answers with something that is no JSON") from None
        if not isinstance(document, dict):
            raise SourceFailed(f"{path} answers with {type(document).__name__}, not with an object")
        return document

    @contextmanager
    def download(self, path: str, most: int, **arguments: Any) -> Iterator[BinaryIO]:
        """The bytes at a path, in a file that is gone afterwards. Raises SourceFailed."""
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            seen = 0
            with self._answer("GET", path, **arguments) as answer:
                for chunk in answer.iter_bytes():
                    seen += len(chunk)
                    if seen > most:
                        raise SourceFailed(f"{path} has more than {most} bytes")
                    spool.write(chunk)
            spool.seek(0)
            yield spool  # type: ignore[misc]

    @contextmanager
    def _answer(self, method: str, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        for attempt in range(1, TRIES + 1):
            try:
                with self._http.stream(method, path, **arguments) as answer:
                    if answer.status_code < 300:
                        yield answer
                        return
                    if answer.status_code not in (429, 502, 503, 504) or attempt == TRIES:
                        answer.read()
                        raise SourceFailed(f"{path} answers {answer.status_code}: {answer.text[:300]}")
            except httpx.HTTPError as error:
                if attempt == TRIES or not isinstance(error, httpx.ConnectError):
                    raise SourceFailed(f"{self.name} does not answer: {type(error).__name__}: {error}") from error
            time.sleep(min(0.2 * 2**attempt, 5.0))


def pages(ask: Callable[[str | None], tuple[list[Any], str | None]]) -> Iterator[Any]:
    """The entries of every page. Raises SourceFailed for a source that pages for ever."""
    token: str | None = None
    seen: set[str] = set()
    empty = 0
    for _ in range(MOST_PAGES):
        entries, token = ask(token)
        yield from entries
        if not token:
            return
        empty = 0 if entries else empty + 1
        if token in seen or empty > MOST_EMPTY_PAGES:
            raise SourceFailed("the source pages for ever: the same page token again, or page after page of nothing")
        seen.add(token)
    raise SourceFailed(f"the source has more than {MOST_PAGES} pages")


def listed(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects in an answer; absent is empty. Raises SourceFailed."""
    found = document.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise SourceFailed(f"`{key}` in the answer is not a list of objects")
    return found
