"""No request that a service's OpenAPI document allows, or forbids, makes the service fail.

`make test` sends a few to every operation; `make test-schemas` sends 1,000 to each and prints the table. Which service
and how many: MINTMARK_TEST_SCHEMAS (names), MINTMARK_TEST_CASES, MINTMARK_TEST_OPERATIONS (parts of labels).
"""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

import httpx
import pytest

from shared.ids import sha256
from shared.testing.installation import Installation
from tests.schemas.fuzzing import HEAD, fuzz, operations

CASES = int(os.environ.get("MINTMARK_TEST_CASES") or 8)
NAMED = (os.environ.get("MINTMARK_TEST_OPERATIONS") or "/").split(",")
SERVICES = (os.environ.get("MINTMARK_TEST_SCHEMAS") or "registry,prompts").split(",")


async def a_model(client: httpx.AsyncClient) -> dict[str, Any]:
    """A registered model with an alias, an intent and a binding: what they are called in paths."""
    data = b"tree\nversion=v4\nnum_class=1\nfeature_names=f1\n"
    artefact = {"digest": sha256(data), "format": "lightgbm"}
    await client.put(f"/registry/v1/artefacts/{artefact['digest']}", content=data)
    ids = {"submission_id": str(uuid4())}
    event = {**ids, "kind": "model", "name": "credit-pd", "artefact": artefact}
    view = (await client.post("/registry/v1/submissions", json=event)).json()
    assert view["state"] == "registered", view
    alias = {"json": {"version": 1, "reason": "good"}, "headers": {"if-none-match": "*"}}
    await client.put("/registry/v1/assets/model/credit-pd/aliases/champion", **alias)
    intent = (await client.post("/registry/v1/intents", json={"team": "risk", "purpose": "credit default"})).json()
    use = {"urn": "mm:model/credit-pd", "version": 1, "consumer": "risk", "purpose": "loans"}
    binding = (await client.post("/registry/v1/bindings", json=use)).json()
    return {
        **ids, "kind": "model", "name": "credit-pd", "number": 1, "alias": "champion",
        "digest": artefact["digest"], "intent_id": intent["intent_id"], "binding_id": binding["binding_id"],
    }  # fmt: skip


async def a_prompt(client: httpx.AsyncClient) -> dict[str, Any]:
    """A prompt with a label: what they are called in paths."""
    made = await client.post("/prompts/v1/prompts/clerk/versions", json={"text": "Dear {{ name }}"})
    assert made.status_code < 300, made.text
    return {"name": "clerk", "number": 1, "version": 1, "label": "latest"}


SEEDED = {"registry": a_model, "prompts": a_prompt}


@pytest.mark.timeout(120 + 6 * CASES * 100)
@pytest.mark.parametrize("service", SERVICES)
async def test_no_request_makes_a_service_fail(
    installation: Installation, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = installation.key("user:mallory", "owner")
    await installation.start(service)
    tallies = []
    async with installation.client(service, key) as client:
        known = await SEEDED[service](client)
        for operation in await operations(installation, service):
            if any(part in operation.label for part in NAMED):
                tallies.append(await fuzz(client, operation, CASES, known))
    with capsys.disabled():
        if CASES >= 1_000:
            print("\n" + HEAD + "\n" + "\n".join(tally.row() for tally in tallies))
    assert tallies and all(tally.cases for tally in tallies)
    failures = [f"{tally.label}: {failure}" for tally in tallies for failure in tally.failures]
    assert not failures, f"{len(failures)} answers were failures of ours:\n" + "\n".join(failures[:20])
