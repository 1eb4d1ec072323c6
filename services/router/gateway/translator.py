"""The seam between what a client speaks and what its upstream does: one translator a request.

An exchange knows nothing of bodies. It has a translator read the request, ask for the bytes to send to the target it
has chosen, and make the client's answer, and the row's columns, of what came back: whole, or chunk by chunk. `oip` is
the one for the Open Inference Protocol, `chat` for OpenAI's and Anthropic's protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from services.router.gateway.arms import Served
from services.router.gateway.http_server import Request
from services.router.gateway.rows import Answer
from shared.errors import MintmarkError

# Of one connection and not of the answer (RFC 9110, 7.6.1), or written anew for the client.
HOP_BY_HOP = frozenset(
    b"connection keep-alive transfer-encoding content-length te trailer upgrade proxy-connection".split()
)
OURS = b"x-mintmark-"

__all__ = ["Answer", "Headers", "Translate", "Translator", "passed"]

Headers = list[tuple[bytes, bytes]]


class Translator(Protocol):
    """One request's translation. Methods are called on the event loop and must not block.

    `protocol` is the row's column; `input` the request as JSON, for the row; `unit` whom the body names, if anybody;
    `streams` whether a stream was asked for.
    """

    protocol: str
    input: bytes | None
    unit: str | None
    streams: bool

    @property
    def value(self) -> object:
        """The request as parsed JSON, once it was read; not to be changed."""

    @property
    def canonical(self) -> object | None:
        """What makes the request the very same as another one; None where only its bytes could tell."""

    def attribute(self, name: str) -> object:
        """The first value of an input, or a field of a conversation's request; MISSING where there is none."""

    def fork(self) -> Translator:
        """The same request, read, for another attempt: translators in use share nothing that changes."""

    def read(self) -> None:
        """Parse the request. Raises Malformed, Invalid, UnsupportedMedia, each naming what is wrong."""

    def rewrite(self, body: bytes) -> None:
        """Go on with another body in place of the request's, of the same form: the same with its texts masked."""

    def ask(self, target: Served, request_id: str) -> tuple[bytes, bytes]:
        """What to send: request line and headers (each line ended; Content-Length and tracing are added), and the body.

        Raises Invalid naming the field that the target does not take or that cannot be translated.
        """

    def features(self, target: Served) -> bytes | None:
        """The row's `features`: JSON by name, None where the protocol has none."""

    def answer(self, status: int, headers: Headers, body: bytes) -> Answer:
        """The client's answer to the upstream's whole one, of whatever status.

        Raises UpstreamGarbageError, UpstreamRefused, UpstreamKeyRefused.
        """

    def begin(self, status: int, headers: Headers) -> bytes:
        """A stream began: the header lines for the client, Content-Type included. Raises UpstreamGarbageError."""

    def chunk(self, data: bytes) -> bytes:
        """What the client gets for these bytes of the stream; may be empty. Raises UpstreamError.

        Until there is something, nothing has gone to the client, and another target may still be asked.
        """

    @property
    def has_token(self) -> bool:
        """Whether the first of what was asked for is here."""

    @property
    def is_complete(self) -> bool:
        """Whether the upstream said that nothing more follows, though its stream goes on."""

    def end(self) -> tuple[bytes, Answer]:
        """The stream is over: its last bytes for the client (may be empty), and the row's columns.

        Raises UpstreamCut when its answer is not.
        """

    def so_far(self) -> Answer:
        """The row's columns of a stream that is not to be ended."""

    def refused(self, error: MintmarkError, request_id: str) -> Answer:
        """What a client gets in place of an answer, as its protocol has it."""

    def cut(self, error: MintmarkError, request_id: str) -> bytes:
        """What a client gets when the stream, once begun, breaks off."""


Translate = Callable[[Request], Translator]


def passed(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The upstream's headers as lines for the client, without what is of its connection or of this gateway."""
    return b"".join(
        [
            b"%b: %b\r\n" % (name, value)
            for name, value in headers
            if name not in HOP_BY_HOP and not name.startswith(OURS)
        ]
    )
