"""OpenAI's embeddings: `POST /v1/embeddings`. Shapes: `openai.types.CreateEmbeddingResponse`."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from sys import byteorder

from services.router.errors import FieldRefused
from services.router.gateway.conversation import JsonObject
from services.router.gateway.protocols import openai_errors
from services.router.gateway.protocols.base import Asked
from services.router.gateway.protocols.opening import opened
from services.router.gateway.protocols.reading import Fields
from shared.errors import MintmarkError


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to embed, one vector each."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    base64: bool = False
    """The official client asks for little-endian float32 in base64 whenever it was not told otherwise."""


@dataclass(frozen=True, slots=True)
class EmbeddingAnswer:
    model: str
    vectors: tuple[Sequence[float], ...]
    input_tokens: int = 0


class Embeddings:
    """See base.ClientProtocol."""

    name = "embeddings"

    def open(self, body: bytes, path: str) -> Asked:
        asked = opened(self, body, "input")
        if asked.stream:
            raise FieldRefused("stream", "cannot be asked of embeddings")
        return asked

    def error(self, error: MintmarkError, request_id: str) -> bytes:
        return openai_errors.body(error, request_id)

    def read(self, value: JsonObject) -> EmbeddingRequest:
        """Raises FieldRefused; lists of token numbers too, which only the model that they belong to can read."""
        fields = Fields(value)
        found = fields.require("input")
        inputs = (found,) if isinstance(found, str) else tuple(found) if isinstance(found, list) else ()
        if not inputs or not all(isinstance(text, str) for text in inputs):
            fields.refuse("input", "must be a string or a list of strings for the provider behind this version")
        request = EmbeddingRequest(
            fields.text("model"),
            inputs,
            fields.integer("dimensions", 1),
            fields.choice("encoding_format", ("float", "base64")) == "base64",
        )
        fields.end()
        return request

    def write(self, answer: EmbeddingAnswer, request: EmbeddingRequest) -> JsonObject:
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _packed(vector) if request.base64 else list(vector),
                }
                for index, vector in enumerate(answer.vectors)
            ],
            "model": answer.model,
            "usage": {"prompt_tokens": answer.input_tokens, "total_tokens": answer.input_tokens},
        }


def _packed(vector: Sequence[float]) -> str:
    floats = array("f", vector)
    if byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()
