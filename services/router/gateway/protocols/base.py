"""What the gateway asks of a protocol that clients speak: to read requests, write answers, streams and errors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from services.router.errors import ProtocolMismatch
from services.router.gateway.conversation import Answer, Conversation, Event, JsonObject
from shared.errors import MintmarkError, Unauthenticated

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
BEARER = b"bearer "


class StreamWriter(Protocol):
    """One stream to one client. What it returns is whole events."""

    def write(self, event: Event) -> bytes: ...

    def fail(self, error: MintmarkError) -> bytes:
        """An error that a client sees as one, after the stream has begun."""
        ...


@runtime_checkable
class ClientProtocol(Protocol):
    """One way of asking. Stateless; one instance serves all requests."""

    name: str

    def open(self, body: bytes, path: str) -> Asked:
        """Read as much of a request as routing needs. Raises Malformed, FieldRefused."""
        ...

    def error(self, error: MintmarkError, request_id: str) -> bytes:
        """The body that the protocol's clients know an error by; JSON."""
        ...


@runtime_checkable
class ChatProtocol(ClientProtocol, Protocol):
    """A protocol of conversations."""

    def read(self, value: JsonObject, ignore: Collection[str]) -> Conversation:
        """The whole request in the neutral form. Raises FieldRefused for what has no place there."""
        ...

    def write(self, answer: Answer, conversation: Conversation, created: int) -> JsonObject:
        """The answer's body. `created` is Unix time in seconds."""
        ...

    def stream(self, conversation: Conversation | None, created: int) -> StreamWriter:
        """`conversation` is None where bytes pass through and only `fail` is asked of the writer."""
        ...


@dataclass(slots=True)
class Asked:
    """A request as far as routing needs it; `conversation` reads the rest, which passing through never needs."""

    protocol: ClientProtocol
    body: bytes
    value: JsonObject
    model: str
    """The group's name."""
    stream: bool
    api_version: str = ""
    """Anthropic clients pin one in a header; whoever passes the request on keeps it."""
    features: str = ""
    """Anthropic's beta features, by header as well."""
    _read: dict[frozenset[str], Conversation] = field(default_factory=dict, repr=False)

    def conversation(self, ignore: frozenset[str] = frozenset()) -> Conversation:
        """The request in the neutral form, read once. `ignore` names fields that the operator lets go.

        Raises FieldRefused, ProtocolMismatch.
        """
        if not isinstance(self.protocol, ChatProtocol):
            raise ProtocolMismatch()
        if ignore not in self._read:
            value = {name: found for name, found in self.value.items() if name not in ignore}
            self._read[ignore] = self.protocol.read(value, ignore)
        return self._read[ignore]


def status_of(error: MintmarkError) -> int:
    """What HTTP answers; a provider's refusal keeps its own status."""
    return int(getattr(error, "upstream_status", error.status))


def credentials(headers: dict[bytes, bytes]) -> bytes:
    """The caller's Authorization header: Anthropic's clients may send their key as `x-api-key`. Raises Unauthenticated.

    `headers` has lower-case names.
    """
    authorization, key = headers.get(b"authorization", b""), headers.get(b"x-api-key", b"")
    if authorization and key and authorization != b"Bearer " + key:
        raise Unauthenticated("The request names two keys, in `authorization` and in `x-api-key`; send one of them.")
    return authorization or (b"Bearer " + key if key else b"")
