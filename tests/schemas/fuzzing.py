"""Requests made from a service's own OpenAPI document, valid ones and invalid ones, sent to that very service."""

from __future__ import annotations

import asyncio
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation

from shared.testing.installation import Installation

AT_ONCE = 50
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
DROPPED = ("authorization", "host", "content-length", "transfer-encoding", "connection", "expect")
"""Headers that would end the conversation, or make somebody else of the caller."""


@dataclass
class Tally:
    """What one operation answered: counts by status class, and each answer that is a failure of ours."""

    label: str
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(self.statuses.values())

    def row(self) -> str:
        counts = [sum(n for status, n in self.statuses.items() if status // 100 == kind) for kind in (2, 4, 5)]
        return f"{self.label:<78} {self.cases:>6} {counts[0]:>6} {counts[1]:>6} {counts[2]:>4}"


HEAD = f"{'operation':<78} {'cases':>6} {'2xx':>6} {'4xx':>6} {'5xx':>4}"


async def operations(installation: Installation, service: str) -> list[Any]:
    """Every operation of a service, but for the kernel's dead letters, each of which reads a whole topic."""
    async with installation.client(service) as http:
        document = (await http.get("/openapi.json")).json()
    document["paths"] = {path: found for path, found in document["paths"].items() if "dead-letters" not in path}
    found = schemathesis.openapi.from_dict(bounded(document)).get_all_operations()
    return sorted((one.ok() for one in found), key=lambda one: str(one.label))


def bounded(node: Any) -> Any:
    """The document with no large collection in it: making 1,000 tags took longer than everything else together."""
    if isinstance(node, list):
        return [bounded(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {name: bounded(value) for name, value in node.items()}
    for most, least, bound in (("maxProperties", "minProperties", 4), ("maxItems", "minItems", 4)):
        if isinstance(made.get(most), int):
            made[most] = max(made.get(least, 0), min(made[most], bound))
    if isinstance(made.get("maxLength"), int):
        made["maxLength"] = max(made.get("minLength", 0), min(made["maxLength"], 500))
    return made


async def fuzz(
    client: httpx.AsyncClient, operation: APIOperation, cases: int, known: Mapping[str, Any], number: int = 1
) -> Tally:
    """So many cases of one operation: half of them as the document says, half not; every other one is about something
    that is there, by `known` parts of its path."""
    tally = Tally(str(operation.label))
    requests = await asyncio.to_thread(lambda: list(generated(operation, cases, known, number)))
    for start in range(0, len(requests), AT_ONCE):
        await asyncio.gather(*(_send(client, request, tally) for request in requests[start : start + AT_ONCE]))
    return tally


def generated(operation: APIOperation, cases: int, known: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """Requests as httpx takes them: fewer where fewer can be made, as of an operation that takes nothing."""
    for mode in MODES:
        try:
            yield from _collected(operation, mode, max(1, cases // len(MODES)), known, number)
        except Unsatisfiable:
            continue  # nothing about it can be invalid


def _collected(
    operation: APIOperation, mode: GenerationMode, cases: int, known: Mapping[str, Any], number: int
) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: schemathesis.Case) -> None:
        if len(made) % 2 and case.path_parameters:
            case.path_parameters |= {name: known[name] for name in case.path_parameters if name in known}
        request = case.as_transport_kwargs(base_url="http://test")
        kept = {name: value for name, value in request.items() if name in KEPT and value is not None}
        headers = request.get("headers") or {}
        kept["headers"] = {name: str(value) for name, value in headers.items() if name.lower() not in DROPPED}
        made.append(kept)

    collect()
    return made


KEPT = ("method", "url", "params", "headers", "json", "data", "content")


async def _send(client: httpx.AsyncClient, request: dict[str, Any], tally: Tally) -> None:
    if "data" in request and isinstance(request["data"], (bytes, str)):
        request["content"] = request.pop("data")
    try:
        answer = await client.request(**request)
    except (ValueError, TypeError, httpx.InvalidURL, UnicodeError, binascii.Error):
        return  # no request that HTTP has a form for
    tally.statuses[answer.status_code] += 1
    if answer.status_code >= 500:
        tally.failures.append(f"{answer.status_code} {str(request)[:600]} -> {answer.text[:200]}")


__all__ = ["HEAD", "Tally", "fuzz", "operations"]
