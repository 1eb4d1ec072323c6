"""Requests and plans that the tests share."""

from __future__ import annotations

from typing import Any

import orjson

from services.router.gateway.protocols import protocol_of
from services.router.gateway.protocols.base import Asked
from services.router.gateway.providers import Attempt, Upstream, plan
from services.router.gateway.sealing import Secret

KEY = "sk-very-secret-0123456789"
AWS_KEY = orjson.dumps({"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI-very-secret"}).decode()
NOW = 1_790_000_000

CHAT_PATH, RESPONSES_PATH, MESSAGES_PATH = "/v1/chat/completions", "/v1/responses", "/v1/messages"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

SIMPLE: dict[str, dict[str, Any]] = {
    CHAT_PATH: {
        "model": "live-chat",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "max_completion_tokens": 50,
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}],
    },
    RESPONSES_PATH: {
        "model": "live-chat",
        "instructions": "Be brief.",
        "input": "Hello?",
        "max_output_tokens": 50,
        "tools": [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": None}],
    },
    MESSAGES_PATH: {
        "model": "live-chat",
        "max_tokens": 50,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hello?"}],
        "tools": [{"name": "get_weather", "input_schema": WEATHER}],
    },
}


def upstream(kind: str, **more: Any) -> Upstream:
    made: dict[str, Any] = {"kind": kind, "model": "upstream-model", "region": "eu-west-1"}
    if kind in ("openai-compatible", "oip"):
        made["base_url"] = "https://models.example.com/v1"
    if kind == "sagemaker":
        made["container"] = "chat"
    return Upstream(**(made | more))


def asked(path: str, value: dict[str, Any] | bytes, **more: Any) -> Asked:
    protocol = protocol_of(path)
    assert protocol is not None
    body = value if isinstance(value, bytes) else orjson.dumps(value | more)
    return protocol.open(body, path)


def planned(request: Asked, to: Upstream, **more: Any) -> Attempt:
    secret = Secret(AWS_KEY if to.kind in ("bedrock", "sagemaker") else KEY)
    return plan(request, to, secret, created=NOW, request_id="req-1", **more)
