"""What a reader finds, in the form that the registry takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, BinaryIO, Protocol

Upload = Callable[[BinaryIO], tuple[str, int]]
"""Sends a file from where it stands; digest and size of it."""

Wanted = Callable[[str], bool]
"""Whether something of that title was asked for."""


class SourceFailed(Exception):
    """The source did not answer, or not as it should."""


@dataclass(slots=True)
class FoundVersion:
    """`document` is what the source says; `fetch` brings the bytes and says more, once the version is to be made."""

    document: dict[str, Any]
    fetch: Callable[[Upload], dict[str, Any]] | None = None


@dataclass(slots=True)
class FoundAsset:
    """An asset of the source. `document` is without its versions."""

    document: dict[str, Any]
    versions: list[FoundVersion] = field(default_factory=list)

    @property
    def title(self) -> str:
        return str(self.document["title"])


@dataclass(slots=True)
class FoundTrial:
    """A run or a logged model. `document` has the latest values; `fetch` brings all of them, and the files."""

    document: dict[str, Any]
    fetch: Callable[[Upload], dict[str, Any]]


@dataclass(slots=True)
class Trials:
    """Some runs and logged models of an experiment."""

    experiment: dict[str, Any]
    runs: list[FoundTrial]
    models: list[FoundTrial]


class Reader(Protocol):
    """`kind` is what the source speaks, `name` is what it is known by for good; neither holds a credential."""

    kind: str
    name: str

    def assets(self, wanted: Wanted) -> Iterator[FoundAsset]:
        """Everything that is wanted. Raises SourceFailed."""

    def count(self) -> int | None:
        """How many assets there will be, as far as that is known."""


def fingerprint(*of: Any) -> str:
    """Stands for what cannot change of a version at its source."""
    return sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()[:40]


def moment(ms: Any) -> str | None:
    """Milliseconds since 1970, as a number or a text, as a time; None for what is none."""
    try:
        return datetime.fromtimestamp(int(ms) / 1000, UTC).isoformat() if ms is not None else None
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def without_nothing(document: dict[str, Any]) -> dict[str, Any]:
    """Fields that say nothing are left out."""
    return {key: value for key, value in document.items() if value not in (None, "", {}, [])}
