"""What clients speak: OpenAI's chat completions, responses and embeddings, Anthropic's messages, Open Inference.

    protocol = protocol_of("/v1/chat/completions")
    asked = protocol.open(body, path)             # cheap: the group's name and whether to stream
    asked.conversation()                          # all of it, in the neutral form; only where it must be translated
    protocol.error(error, request_id)             # a body that the protocol's own clients read

The `model` of a request is the name of a group. Everything here is pure: bytes in, bytes out.
"""

from __future__ import annotations

from services.router.gateway.protocols.base import (
    EVENT_STREAM,
    JSON,
    Asked,
    ChatProtocol,
    ClientProtocol,
    StreamWriter,
    credentials,
    status_of,
)
from services.router.gateway.protocols.chat import ChatCompletions
from services.router.gateway.protocols.embeddings import Embeddings
from services.router.gateway.protocols.messages import Messages
from services.router.gateway.protocols.oip import OpenInference
from services.router.gateway.protocols.responses import Responses

CHAT = ChatCompletions()
EMBEDDINGS = Embeddings()
MESSAGES = Messages()
RESPONSES = Responses()
OIP = OpenInference()

PATHS: dict[str, ClientProtocol] = {
    "/v1/chat/completions": CHAT,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}


def protocol_of(path: str) -> ClientProtocol | None:
    """The protocol of a path (without its query) that is asked by POST; None if it is none of ours."""
    if path.startswith("/v2/models/") and path.endswith("/infer"):
        return OIP
    return PATHS.get(path)


__all__ = [
    "CHAT",
    "EMBEDDINGS",
    "EVENT_STREAM",
    "JSON",
    "MESSAGES",
    "OIP",
    "RESPONSES",
    "Asked",
    "ChatProtocol",
    "ClientProtocol",
    "StreamWriter",
    "credentials",
    "protocol_of",
    "status_of",
]
