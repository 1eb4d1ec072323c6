"""CloudEvents 1.0 on Kafka: binary mode out, binary and structured in. Pure; the bus moves the bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from shared import strict_json
from shared.errors import Invalid, Malformed, MintmarkError
from shared.events import BY_TYPE
from shared.events.base import UNVERIFIED, Actor, Event

E = TypeVar("E", bound=Event)
Headers = tuple[tuple[str, bytes], ...]

STRUCTURED = "application/cloudevents+json"
DEFAULT_WORKSPACE = "default"
WORKSPACE = r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?"
REPLAY = "mintmark-replay"
"""Header that an operator's replay carries: lets a dead event through the inbox once more."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One CloudEvent with its attributes; `data` is the JSON text as it travelled."""

    id: str
    source: str
    type: str
    subject: str
    data: bytes
    time: datetime | None = None
    workspace: str = DEFAULT_WORKSPACE
    sequence: int | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    proof: str | None = None
    replay: bool = False

    def headers(self) -> list[tuple[str, bytes]]:
        """Kafka headers of the binary mode."""
        pairs: list[tuple[str, str | None]] = [
            ("ce_specversion", "1.0"),
            ("ce_id", self.id),
            ("ce_source", self.source),
            ("ce_type", self.type),
            ("ce_subject", self.subject),
            ("ce_time", None if self.time is None else self.time.isoformat()),
            ("ce_dataschema", f"/schemas/{self.type}.json"),
            ("content-type", "application/json"),
            ("ce_workspace", self.workspace),
            ("ce_sequence", None if self.sequence is None else str(self.sequence)),
            ("ce_correlationid", self.correlation_id),
            ("ce_causationid", self.causation_id),
            ("ce_proof", self.proof),
            ("traceparent", self.traceparent),
            (REPLAY, "1" if self.replay else None),
        ]
        return [(name, value.encode()) for name, value in pairs if value is not None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record stood on Kafka."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """An event as a handler gets it: parsed, with its envelope, origin and proven author."""

    event: E
    envelope: Envelope
    origin: Origin | None = None
    author: Actor = field(default=UNVERIFIED)

    @property
    def workspace(self) -> str:
        return self.envelope.workspace

    @property
    def id(self) -> str:
        return self.envelope.id

    def by(self, author: Actor) -> Received[E]:
        """The same event with its author proven."""
        return replace(self, author=author)


class UnknownType(MintmarkError):
    """No event class has this type and version."""

    code = "unknown-type"
    status = 422


class NotACloudEvent(Malformed):
    """The record is no CloudEvent 1.0."""

    code = "not-a-cloudevent"


def decode(value: bytes | None, headers: Iterable[tuple[str, bytes]], key: bytes | None) -> Envelope:
    """Read a Kafka record in either mode. Raises NotACloudEvent with what is missing."""
    found = {name.lower(): raw for name, raw in headers}
    content_type = _text(found, "content-type") or ""
    if value is None:
        raise NotACloudEvent("the record has no value")
    if content_type.startswith(STRUCTURED):
        return _structured(value, found)
    if "ce_id" not in found:
        raise NotACloudEvent("the record has neither ce_id (binary mode) nor content-type application/cloudevents+json")
    attributes = {name[3:]: _text(found, name) for name in found if name.startswith("ce_")}
    return _envelope(attributes, value, found, key)


def _structured(value: bytes, found: Mapping[str, bytes]) -> Envelope:
    document = strict_json.loads(value)
    if not isinstance(document, dict):
        raise NotACloudEvent("a structured CloudEvent is a JSON object")
    if "data" not in document:
        raise NotACloudEvent("the CloudEvent has no data")
    # json, not orjson: lone surrogates and integers of 30 digits are JSON, and it is the contract that refuses them.
    data = json.dumps(document.pop("data"), separators=(",", ":")).encode()
    return _envelope(document, data, found, None)


def _envelope(attributes: Mapping[str, Any], data: bytes, found: Mapping[str, bytes], key: bytes | None) -> Envelope:
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            raise NotACloudEvent(f"the CloudEvent has no {name}")
    if str(attributes.get("specversion")) != "1.0":
        raise NotACloudEvent(f"specversion {attributes.get('specversion')!r} is not 1.0")
    sequence = attributes.get("sequence")
    traceparent = attributes.get("traceparent") or _text(found, "traceparent")
    return Envelope(
        id=_bounded("id", attributes["id"], 200),
        source=_bounded("source", attributes["source"], 500),
        type=_bounded("type", attributes["type"], 200),
        subject=_bounded(
            "subject", attributes.get("subject") or (key or b"").decode("utf-8", "replace") or "unknown", 500
        ),
        data=data,
        time=_moment(attributes.get("time")),
        workspace=_workspace(attributes.get("workspace") or DEFAULT_WORKSPACE),
        sequence=_sequence(sequence),
        correlation_id=_optional("correlationid", attributes.get("correlationid"), 200),
        causation_id=_optional("causationid", attributes.get("causationid"), 200),
        traceparent=_optional("traceparent", traceparent, 200),
        proof=_optional("proof", attributes.get("proof"), 10_000),
        replay=REPLAY in found,
    )


def _text(found: Mapping[str, bytes], name: str) -> str | None:
    raw = found.get(name)
    if raw is None:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotACloudEvent(f"the header {name} is not UTF-8") from None


def _bounded(name: str, value: object, most: int) -> str:
    text = str(value)
    if len(text) > most or "\x00" in text:
        raise NotACloudEvent(f"{name} is longer than {most} characters or holds a NUL")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise NotACloudEvent(f"{name} holds half of a surrogate pair, which is no character")
    return text


def _optional(name: str, value: object, most: int) -> str | None:
    return None if value is None else _bounded(name, value, most)


def _workspace(text: object) -> str:
    """Only a real workspace's name: `*` would show a handler the rows of all of them."""
    if not re.fullmatch(WORKSPACE, str(text)):
        raise NotACloudEvent(f"workspace {str(text)[:70]!r} is not a name like `credit-risk`")
    return str(text)


def _moment(text: object) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        raise NotACloudEvent(f"time {str(text)[:40]!r} is not RFC 3339") from None


def _sequence(text: object) -> int | None:
    if text is None:
        return None
    if not str(text).isdecimal() or len(str(text)) > 18:
        raise NotACloudEvent("sequence is not a whole number")
    return int(str(text))


def parse(envelope: Envelope) -> Event:
    """The envelope's event, by its type. Raises UnknownType, Malformed or Invalid with the field and the reason."""
    cls = BY_TYPE.get(envelope.type)
    if cls is None:
        known = ", ".join(sorted(name for name in BY_TYPE if name.split(".v")[0] == envelope.type.split(".v")[0]))
        raise UnknownType(
            f"no event has the type {envelope.type[:100]!r}" + (f"; known here: {known}" if known else "")
        )
    document = strict_json.loads(envelope.data)
    try:
        return cls.model_validate(document)
    except ValidationError as error:
        raise Invalid(explain(error), errors=problems(error)) from None


def explain(error: ValidationError) -> str:
    """One sentence for a validation error: the first problems, each with its field."""
    found = problems(error)
    shown = "; ".join(f"{problem['field']}: {problem['reason']}" for problem in found[:3])
    return shown + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def problems(error: ValidationError) -> list[dict[str, str]]:
    """Every problem of a validation error as field and reason, without the values that were sent."""
    return [
        {
            "field": ".".join(str(part) for part in entry["loc"]) or "the whole",
            "reason": entry["msg"].removeprefix("Value error, "),
        }
        for entry in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def encode(event: Event) -> bytes:
    """The event's data as JSON."""
    return event.model_dump_json(by_alias=True, exclude_none=False).encode()
