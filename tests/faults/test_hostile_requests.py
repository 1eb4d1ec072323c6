"""Requests that somebody made up to break us, to every address of every service: never a 5xx, always a reason."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from shared.events import SERVICES
from shared.testing.installation import Installation
from tests.faults import hostile

pytestmark = pytest.mark.timeout(180)
OF_AN_ADDRESS = 2 * max(20, int(os.environ.get("MINTMARK_TEST_SEEDS") or 0))
BODIES = (b"", b"{", b"null", b"[]", b'"text"', b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 10_000, b"\xff\xfe", b"\x00")
TEXTS = (
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%f0%9f%92%a5",
    "a" * 300,
    "-1",
    str(2**31),
    str(2**63),
    "%ed%a0%80",
    "'",
    "%25",
    " ",
)
KNOWN: dict[str, Any] = {
    "urn": "mm:model/credit",
    "digest": "sha256:" + "a" * 64,
    "name": "credit",
    "kind": "model",
    "uuid": "0199f3c2-7a10-7001-8a5e-3f1c2d4b5a60",
    "date-time": "2026-11-20T10:00:00Z",
}


async def test_no_request_surprises_an_address(installation: Installation) -> None:
    random = Random(1)
    key = installation.key("user:mallory", "owner")
    await installation.start(*SERVICES)
    problems, asked = [], 0
    for service in SERVICES:
        async with installation.client(service, key) as http:
            document = (await http.get("/openapi.json")).json()
            for path, operations in document["paths"].items():
                if "dead-letters" in path and service != "registry":
                    continue  # the kernel's, the same everywhere, and each reads a whole topic
                for method, operation in operations.items():
                    found = list(requests(document, path, operation))
                    for request in random.sample(found, min(OF_AN_ADDRESS, len(found))):
                        answer = await http.request(method, **request)
                        asked += 1
                        wrong = complaint(answer)
                        if wrong:
                            problems.append(f"{method} {str(request)[:300]}: {wrong}")
    assert asked > 500
    assert not problems, f"{len(problems)} of {asked}:\n" + "\n".join(problems[:30])
    print(f"{asked} hostile requests to {len(SERVICES)} services")


def complaint(answer: httpx.Response) -> str | None:
    """A refusal is a problem with a code and a sentence; nothing is an error of ours."""
    if answer.status_code < 400:
        return None
    if answer.status_code >= 500:
        return f"{answer.status_code} {answer.text[:300]}"
    try:
        problem = answer.json()
        return None if problem["code"] and problem["detail"] else f"no reason: {answer.text[:300]}"
    except (ValueError, KeyError):
        return f"no problem document: {answer.status_code} {answer.text[:300]}"


def requests(document: dict[str, Any], path: str, operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Arguments of httpx: one hostile thing at a time, all else plausible."""
    parameters = operation.get("parameters", [])
    plain = {one["name"]: _plausible(document, one["name"], one["schema"]) for one in parameters}
    names = {place: [one["name"] for one in parameters if one["in"] == place] for place in ("path", "query", "header")}
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    body = None if schema is None else _plausible(document, "", schema)

    def made(content: bytes | None, **values: str) -> dict[str, Any]:
        texts = {name: quote(str(value), safe="") for name, value in plain.items()} | values
        url = path
        for name in names["path"]:
            url = url.replace("{" + name + "}", texts[name])
        query = "&".join(f"{name}={texts[name]}" for name in names["query"] if name in values)
        headers = {name: values[name].encode("latin-1", "replace") for name in names["header"] if name in values}
        if content is not None:
            headers["content-type"] = b"application/json"
        return {"url": f"{url}?{query}" if query else url, "content": content, "headers": headers}

    usual = None if body is None else json.dumps(body).encode()
    for one in parameters:
        for text in TEXTS:
            yield made(usual, **{one["name"]: text})
    if body is not None:
        for content in BODIES:
            yield made(content)
        for other in hostile.changes(body):
            yield made(json.dumps(other).encode())


def _plausible(document: dict[str, Any], name: str, schema: dict[str, Any]) -> Any:
    """A value that fits a schema well enough to be looked at."""
    if "$ref" in schema:
        found = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return _plausible(document, name, found)
    for either in ("anyOf", "oneOf", "allOf"):
        if either in schema:
            real = [one for one in schema[either] if one.get("type") != "null"]
            return _plausible(document, name, real[0])
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    if kind == "object":
        return {key: _plausible(document, key, value) for key, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [_plausible(document, name, schema.get("items", {}))]
    if kind in ("integer", "number"):
        return max(1, int(schema.get("minimum", 1)))
    if kind == "boolean":
        return True
    return KNOWN.get(schema.get("format", ""), KNOWN.get(name, "text"))
