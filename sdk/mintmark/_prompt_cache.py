"""What the prompt clients share: prompts, their cache, snapshots, and what an answer means."""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mintmark.client import Problem, document_of, unreadable

SNAPSHOT_TYPE = "application/vnd.mintmark.prompts-snapshot+json"
SIGNER = "prompts"
PLACE = re.compile(r"\{\{([^{}]*)\}\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
MOST_KEPT = 10_000

Source = Literal["server", "cache", "snapshot", "fallback"]


class SnapshotRefused(ValueError):
    """The file is no snapshot, or nobody trusted signed it."""


class CannotCompile(ValueError):
    """The prompt needs more than this machine has: a variable, or jinja2."""


@dataclass(frozen=True)
class Prompt:
    """One version as it is used. `source` says where it came from; a fallback has version 0."""

    title: str
    version: int
    content: Mapping[str, Any]
    source: Source = "server"
    label: str | None = None
    name: str = ""

    @property
    def text(self) -> str | None:
        found = self.content.get("resolved_text", self.content.get("text"))
        return None if found is None else str(found)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.content.get("resolved_messages", self.content.get("messages", ())))

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.content.get("config", {}))

    def compile(self, **variables: Any) -> str | list[dict[str, Any]]:
        """The text, or the messages, with the variables filled in here. Raises CannotCompile.

        `{{name}}` needs nothing; conditionals and loops need jinja2 to be installed (`Prompts.render` asks the server).
        """
        declared = self.content.get("variables", {})
        filled = {name: one.get("default") for name, one in declared.items() if not one.get("required", True)}
        filled |= variables
        missing = sorted(set(declared) - set(filled))
        if missing:
            raise CannotCompile(f"these variables need a value: {', '.join(missing)}")
        text = self.text
        if text is not None:
            return self._filled(text, {"examples": self.content.get("examples", []), **filled})
        return list(self._messages(filled))

    def _messages(self, filled: dict[str, Any]) -> Any:
        shots = [
            {"role": role, "content": one[part]}
            for one in self.content.get("examples", ())
            for role, part in (("user", "input"), ("assistant", "output"))
        ]
        has_place = any(turn.get("role") == "examples" for turn in self.messages)
        for turn in self.messages:
            if turn.get("type") == "placeholder":
                yield from filled.get(turn["name"]) or ()
                continue
            if turn["role"] == "examples" or (shots and not has_place and turn["role"] not in ("system", "developer")):
                yield from shots
                shots = []
            if turn["role"] != "examples":
                yield {"role": turn["role"], "content": self._filled(turn["content"], filled)}

    def _filled(self, text: str, filled: dict[str, Any]) -> str:
        plain = self.content.get("syntax") == "plain"
        if plain or ("{%" not in text and "{#" not in text and all(map(_is_name, PLACE.findall(text)))):
            return PLACE.sub(lambda match: _value(match, filled), text)
        try:
            from jinja2 import StrictUndefined
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise CannotCompile(
                f"{self.title} has conditions or loops: install jinja2, or let the server render it"
            ) from None
        made = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=True, finalize=lambda value: "" if value is None else value
        )
        return made.from_string(text).render(filled)


def _is_name(found: str) -> bool:
    return NAME.fullmatch(found.strip()) is not None


def _value(match: re.Match[str], filled: Mapping[str, Any]) -> str:
    name = match[1].strip()
    if name not in filled:
        return match[0]
    return "" if filled[name] is None else str(filled[name])


@dataclass(frozen=True)
class Wanted:
    """Which version: by number, else by label; a unit falls to its arm where the label is split."""

    title: str
    label: str = "production"
    version: int | None = None
    unit: str | None = None

    @property
    def path(self) -> str:
        return f"/prompts/v1/prompts/{quote(self.title, safe='')}"

    @property
    def query(self) -> dict[str, str | int]:
        if self.version is not None:
            return {"version": self.version}
        return {"label": self.label, **({"unit": self.unit} if self.unit is not None else {})}


@dataclass
class Kept:
    """A prompt in the cache; `refreshing` while somebody asks for it again."""

    prompt: Prompt
    etag: str
    asked_at: float
    refreshing: bool = False


@dataclass
class Cache:
    """Stale-while-revalidate: an old prompt is given at once, and one caller is told to ask for it again."""

    kept: dict[Wanted, Kept] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, wanted: Wanted, ttl_s: float) -> tuple[Kept | None, bool]:
        """What is kept, and whether the caller is the one to refresh it."""
        with self.lock:
            found = self.kept.get(wanted)
            if found is None or time.monotonic() - found.asked_at < ttl_s or found.refreshing:
                return found, False
            found.refreshing = True
            return found, True

    def etag(self, wanted: Wanted) -> str | None:
        found = self.kept.get(wanted)
        return found.etag if found else None

    def answered(self, wanted: Wanted, answer: httpx.Response) -> Prompt:
        """Keep what the server said. Raises Problem for a refusal; one for what is gone empties the cache of it."""
        with self.lock:
            now = time.monotonic()
            found = self.kept.get(wanted)
            if answer.status_code == 304 and found is not None:
                self.kept[wanted] = Kept(found.prompt, found.etag, now)
                return found.prompt
            if answer.status_code != 200:
                if answer.status_code in (403, 404):
                    self.kept.pop(wanted, None)
                if answer.has_redirect_location:
                    raise unreadable(answer)
                raise Problem(answer.status_code, document_of(answer))
            prompt = _prompt(answer)
            if len(self.kept) >= MOST_KEPT and wanted not in self.kept:
                self.kept.pop(next(iter(self.kept)))  # units are many; the oldest of them makes room
            kept = replace(prompt, source="cache")
            self.kept[wanted] = Kept(kept, answer.headers.get("etag", ""), now)
            return prompt

    def gave_up(self, wanted: Wanted) -> None:
        """The refresh is over: what it did not replace goes on, and is asked for again at the next call."""
        with self.lock:
            found = self.kept.get(wanted)
            if found is not None:
                found.refreshing = False

    def clear(self) -> None:
        with self.lock:
            self.kept.clear()


def _prompt(answer: httpx.Response) -> Prompt:
    """Raises Problem, as for a broken gateway, where something else than the server answered: a login page, say."""
    try:
        body = answer.json()
        label = answer.headers.get("x-mintmark-label") or None
        return Prompt(body["title"], body["version"], body["content"], "server", label, body["name"])
    except (ValueError, LookupError, TypeError):
        raise unreadable(answer) from None


def is_outage(error: Exception) -> bool:
    """True where the server is away or broken, and not where it refused."""
    return isinstance(error, httpx.TransportError) or (isinstance(error, Problem) and error.status >= 500)


class Snapshot:
    """Labelled prompts from a file that the installation signed; needs nobody."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.workspace = str(payload["workspace"])
        self.at = str(payload["at"])
        self._by_label: dict[tuple[str, str], Prompt] = {}
        self._by_version: dict[tuple[str, int], Prompt] = {}
        for one in payload["prompts"]:
            prompt = Prompt(one["title"], one["version"], one["content"], "snapshot", None, one["name"])
            for called in {one["title"], one["name"]}:
                self._by_version[called, one["version"]] = prompt
                for label in one["labels"]:
                    self._by_label[called, label] = replace(prompt, label=label)

    def get(self, wanted: Wanted) -> Prompt | None:
        """The version that the label pointed at when the snapshot was made; splits do not count in it."""
        if wanted.version is not None:
            return self._by_version.get((wanted.title, wanted.version))
        return self._by_label.get((wanted.title, wanted.label))

    @classmethod
    def read(cls, file: Path, trust: Path) -> Snapshot:
        """A snapshot whose signature holds. Raises SnapshotRefused."""
        try:
            return cls.verified(json.loads(file.read_bytes()), keys_of(trust))
        except (OSError, ValueError) as error:
            raise SnapshotRefused(f"{file} cannot be read: {error}") from None

    @classmethod
    def verified(cls, envelope: Any, keys: Mapping[str, Ed25519PublicKey]) -> Snapshot:
        """Raises SnapshotRefused unless every signature is by a trusted key and holds."""
        try:
            payload = base64.b64decode(envelope["payload"], validate=True)
            kind = envelope["payloadType"]
            signatures = [(one["keyid"], base64.b64decode(one["sig"], validate=True)) for one in envelope["signatures"]]
        except (KeyError, TypeError, binascii.Error) as error:
            raise SnapshotRefused(f"this is not a signed snapshot: {error}") from None
        if kind != SNAPSHOT_TYPE or not signatures:
            raise SnapshotRefused(f"this is {kind!r}, and not a signed snapshot")
        signed = b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)
        for keyid, signature in signatures:
            key = keys.get(keyid) if keyid == SIGNER else None
            if key is None:
                raise SnapshotRefused(f"the signer {keyid!r} is not trusted for snapshots")
            try:
                key.verify(signature, signed)
            except InvalidSignature:
                raise SnapshotRefused("the signature does not fit the snapshot; it was changed") from None
        return cls(json.loads(payload))


def keys_of(trust: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys of a trust file, `{"prompts": "<base64 of 32 bytes>", …}`. Raises SnapshotRefused."""
    try:
        entries = json.loads(trust.read_text())
        return {name: Ed25519PublicKey.from_public_bytes(base64.b64decode(raw)) for name, raw in entries.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise SnapshotRefused(f"the trust file {trust} cannot be read: {error}") from None


def fallback_of(wanted: Wanted, fallback: str | list[dict[str, Any]] | None) -> Prompt | None:
    """What the caller wants rather than an error; `{{name}}` is filled in, nothing else has a meaning."""
    if fallback is None:
        return None
    content: dict[str, Any] = {"syntax": "plain"}
    content["text" if isinstance(fallback, str) else "messages"] = fallback
    return Prompt(wanted.title, 0, content, "fallback")


def rather(
    error: Exception, wanted: Wanted, snapshot: Snapshot | None, fallback: str | list[dict[str, Any]] | None
) -> Prompt:
    """What to give instead of an answer: the snapshot's in an outage, else the fallback; else the error is raised."""
    found = snapshot.get(wanted) if snapshot is not None and is_outage(error) else None
    found = found or fallback_of(wanted, fallback)
    if found is None:
        raise error
    return found
