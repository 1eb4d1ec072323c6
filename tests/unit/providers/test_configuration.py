"""Providers as they are set up: what is read, what is refused by name, and that a key has no place there."""

from __future__ import annotations

from typing import Any

import pytest

from services.router.errors import FieldRefused
from services.router.gateway.providers import KINDS
from services.router.gateway.providers.configuration import to_json, upstream_of


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "openai", "model": "gpt-x"},
        {"kind": "openai-compatible", "model": "m", "base_url": "https://models.example.com/v1", "asks_usage": False},
        {"kind": "openai-compatible", "model": "m", "base_url": "http://vllm:8000/v1", "limit_field": "max_tokens"},
        {"kind": "anthropic", "model": "claude-x", "api_version": "2026-10-21", "ignore": ["cache_control", "seed"]},
        {"kind": "bedrock", "model": "eu.anthropic.claude-v1:0", "region": "eu-west-1"},
        {"kind": "sagemaker", "model": "my-endpoint", "region": "us-gov-west-1", "container": "chat"},
        {"kind": "oip", "model": "census/versions/3", "base_url": "http://triton:8000", "key_header": "x-key"},
    ],
)
def test_what_is_read_is_written_again(value: dict[str, Any]) -> None:
    assert to_json(upstream_of(value)) == value


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([], "body"),
        ({"model": "m"}, "kind"),
        ({"kind": "cohere", "model": "m"}, "kind"),
        ({"kind": "openai"}, "model"),
        ({"kind": "openai", "model": ""}, "model"),
        ({"kind": "openai", "model": "a\nb"}, "model"),
        ({"kind": "openai", "model": "m", "key": "sk-123"}, "key"),
        ({"kind": "openai", "model": "m", "base_url": "https://0x7f.1"}, "base_url"),
        ({"kind": "openai-compatible", "model": "m"}, "base_url"),
        ({"kind": "oip", "model": "m"}, "base_url"),
        ({"kind": "bedrock", "model": "m"}, "region"),
        ({"kind": "bedrock", "model": "m", "region": "evil.com/"}, "region"),
        ({"kind": "openai", "model": "m", "key_header": "a: b"}, "key_header"),
        ({"kind": "openai", "model": "m", "key_header": "Content-Length"}, "key_header"),
        ({"kind": "openai", "model": "m", "key_header": "schlüssel"}, "key_header"),
        ({"kind": "openai", "model": "m", "ignore": "seed"}, "ignore"),
        ({"kind": "openai", "model": "m", "max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_is_refused_is_named(value: Any, field: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        upstream_of(value)
    assert refused.value.field == field
    assert "sk-123" not in refused.value.message


def test_every_kind_can_be_set_up() -> None:
    for kind in (*KINDS, "sagemaker"):
        upstream_of({"kind": kind, "model": "m", "region": "eu-west-1", "base_url": "https://models.example.com"})
