"""What upstreams speak: OpenAI and compatible servers, Anthropic, Gemini, Bedrock, SageMaker, Open Inference servers.

    attempt = plan(asked, upstream, secret, created=now, request_id=id)   # raises FieldRefused, ProtocolMismatch
    payload = attempt.request.payload()                                   # send it to attempt.request.base
    attempt.answer(status, headers, body)                                 # not streamed, or not 200
    streaming = attempt.stream(status, headers)                           # streamed: feed, end, or fail

Pure: bytes in, bytes out, no socket. A new kind of provider is a dialect and an entry in KINDS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from services.router.gateway.framing import AwsFrames, SseFrames, SseInAws
from services.router.gateway.protocols.base import Asked
from services.router.gateway.providers import attempt as attempts
from services.router.gateway.providers.anthropic import AnthropicMessages
from services.router.gateway.providers.attempt import Answered, Attempt, Streaming
from services.router.gateway.providers.base import Dialect, Provider, Upstream, UpstreamRequest
from services.router.gateway.providers.bedrock import Converse
from services.router.gateway.providers.gemini import Gemini
from services.router.gateway.providers.openai_chat import OpenAIChat
from services.router.gateway.providers.openai_responses import OpenAIResponses
from services.router.gateway.providers.signing import AWS_EVENT_STREAM, AWS_NEEDS, by_bearer, by_header, by_sigv4
from services.router.gateway.sealing import Secret
from shared.errors import Invalid

REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")
OPENAI = "https://api.openai.com/v1"


def plan(
    asked: Asked,
    upstream: Upstream,
    secret: Secret | None,
    *,
    created: int,
    request_id: str,
    ask_usage: bool = True,
) -> Attempt:
    """What to send to `upstream` for what was `asked`, and how to read what comes back.

    `created` is Unix time in seconds. `request_id` names the answer where the provider does not. `ask_usage` asks chat
    streams for their tokens although the client did not, and keeps the answer to that from the client.

    Raises FieldRefused for what cannot be said to this provider, ProtocolMismatch, AddressRefused, SealBroken.
    """
    provider = provider_of(upstream)
    return attempts.plan(asked, provider, upstream, secret, created=created, request_id=request_id, ask_usage=ask_usage)


def provider_of(upstream: Upstream) -> Provider:
    """Raises Invalid for a kind that is not known."""
    if upstream.kind == "sagemaker":
        return SAGEMAKER_CHAT if upstream.container == "chat" else SAGEMAKER_OIP
    found = KINDS.get(upstream.kind)
    if found is None:
        raise Invalid(f"There is no kind of provider {upstream.kind!r}; there are {', '.join(KINDS)}, sagemaker.")
    return found


def _path(path: str) -> Callable[[Upstream, bool], str]:
    return lambda upstream, stream: path


def _sagemaker_path(upstream: Upstream, stream: bool) -> str:
    return f"/endpoints/{quote(upstream.model, safe='-')}/invocations" + ("-response-stream" if stream else "")


def _sagemaker_base(upstream: Upstream) -> str:
    return f"https://runtime.sagemaker.{_region(upstream)}.amazonaws.com"


def _region(upstream: Upstream) -> str:
    """The region, which becomes a part of a host's name. Raises Invalid."""
    if not REGION.fullmatch(upstream.region):
        raise Invalid(f"{upstream.region[:60]!r} is not a region of AWS, such as eu-west-1.")
    return upstream.region


def _oip_path(upstream: Upstream, stream: bool) -> str:
    return f"/v2/models/{quote(upstream.model, safe='/-._~')}/infer"


def _unset(upstream: Upstream) -> str:
    raise Invalid(f"A provider of kind {upstream.kind!r} needs its base URL.")


CHAT_PATHS = {"chat": _path("/chat/completions"), "embeddings": _path("/embeddings")}
CHAT_DIALECT: Dialect = OpenAIChat()
RESPONSES_DIALECT: Dialect = OpenAIResponses()
OPENAI_DIALECTS = {"chat": CHAT_DIALECT, "responses": RESPONSES_DIALECT}

KINDS: dict[str, Provider] = {
    provider.kind: provider
    for provider in (
        Provider(
            "openai", lambda upstream: OPENAI, CHAT_DIALECT, CHAT_PATHS | {"responses": _path("/responses")},
            by_bearer, SseFrames, native_dialects=OPENAI_DIALECTS,
        ),
        Provider(
            "openai-responses", lambda upstream: OPENAI, RESPONSES_DIALECT,
            {"responses": _path("/responses"), "embeddings": _path("/embeddings")}, by_bearer, SseFrames,
        ),
        Provider("openai-compatible", _unset, CHAT_DIALECT, CHAT_PATHS, by_bearer, SseFrames),
        Provider(
            "anthropic", lambda upstream: "https://api.anthropic.com", AnthropicMessages(),
            {"messages": _path("/v1/messages")}, by_header("x-api-key"), SseFrames,
        ),
        Provider(
            "gemini", lambda upstream: "https://generativelanguage.googleapis.com/v1", Gemini(), {},
            by_header("x-goog-api-key"), SseFrames,
        ),
        Provider(
            "bedrock", lambda upstream: f"https://bedrock-runtime.{_region(upstream)}.amazonaws.com", Converse(), {},
            by_sigv4("bedrock"), AwsFrames, AWS_EVENT_STREAM, needs=AWS_NEEDS,
        ),
        Provider("oip", _unset, None, {"oip": _oip_path}, by_bearer, SseFrames),
    )
}  # fmt: skip

SAGEMAKER_OIP = Provider(
    "sagemaker", _sagemaker_base, None, {"oip": _sagemaker_path}, by_sigv4("sagemaker"), SseInAws, AWS_EVENT_STREAM,
    needs=AWS_NEEDS,
)  # fmt: skip
"""An endpoint whose container takes Open Inference requests at its /invocations, such as Triton's or MLServer's."""


class _ChatInContainer(OpenAIChat):
    """Chat completions at the /invocations of a container, such as vLLM's or DJL's."""

    def path(self, upstream: Upstream, stream: bool) -> str:
        return _sagemaker_path(upstream, stream)


SAGEMAKER_CHAT = Provider(
    "sagemaker", _sagemaker_base, _ChatInContainer(), {"chat": _sagemaker_path}, by_sigv4("sagemaker"), SseInAws,
    AWS_EVENT_STREAM, needs=AWS_NEEDS,
)  # fmt: skip

__all__ = [
    "KINDS",
    "Answered",
    "Attempt",
    "Provider",
    "Streaming",
    "Upstream",
    "UpstreamRequest",
    "plan",
    "provider_of",
]
