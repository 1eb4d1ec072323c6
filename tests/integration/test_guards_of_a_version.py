"""A guard from its submission to the request that it refuses: registry, policy, deployer, router and gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import lightgbm
import pytest
from registry_story import ROWS as GOLDEN
from registry_story import Registry, a_dataset, a_model
from router_story import FEATURES, NAMES, Traffic, deployment, named, traffic

from services.deployer.bundle import open_verified
from services.deployer.model_server.testing import breast_cancer
from shared.artefacts.folder import FolderStore
from shared.errors import Invalid
from shared.events.base import AssetRef, Interval
from shared.events.deployer import DeployCompleted
from shared.events.evaluator import EvalCompleted
from shared.events.policy import GateDecided
from shared.events.registry import AssetRefused, AssetRegistered
from shared.events.upstream import DatasetVersion
from shared.identity.identity import signing_key, trusted_keys
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
CAUTION = {
    "name": "caution", "kind": "json_schema", "on": "output", "action": "block", "when_it_fails": "closed",
    "timeout_ms": 20_000,  # its process may be starting still
    "json_schema": {"properties": {"probability": {"items": {"maximum": 0.5}}}},
}  # fmt: skip


@dataclass
class Road:
    """All services that a version passes, a gateway at the end, and who acts."""

    installation: Installation
    registry: Registry
    clients: dict[str, httpx.AsyncClient]
    live: Traffic
    dataset: AssetRef

    async def submit(self, rounds: int, **more: Any) -> AssetRegistered:
        """Another version of the model, submitted by ada."""
        rows, truth, _ = breast_cancer(FEATURES)
        data = lightgbm.Dataset(rows, truth, feature_name=NAMES)
        parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1}
        model = lightgbm.train(parameters, data, rounds).model_to_string().encode()
        await self.registry.upload(model)
        event = a_model(
            "tumour", model, task="classification", golden_set={"urn": self.dataset.urn, "version": 1}, **more
        )
        await self.registry.register(event)
        (registered,) = await self.registry.registered(event)
        return registered

    async def let_through(self, version: AssetRef) -> DeployCompleted:
        """Evaluated well, approved by bea, deployed."""
        now = datetime.now(UTC)
        good = {"coverage": (1, 1), "latency_ms.p99": (1, 3), "roc_auc": (0.9, 0.95)}
        measures = {
            name: Interval(value=low, low=low, high=high, n=500, method="counted") for name, (low, high) in good.items()
        }
        golden = DatasetVersion(urn=self.dataset.urn, version=1, digest=self.dataset.digest)
        evaluated = EvalCompleted(
            evaluation_id=uuid4(), asset=version, golden_set=golden, template="tabular-classification",
            measures=measures, report=sha256(b"report"), rows=500, started_at=now, ended_at=now,
        )  # fmt: skip
        await self.installation.publish(evaluated, source="mintmark/evaluator")
        await self.installation.wait_for(GateDecided, lambda gate: gate.asset == version)
        body = {"asset": {**named(version), "digest": version.digest}, "decision": "approved", "reason": "reviewed"}
        answer = await self.clients["policy"].post("/policy/v1/approvals", json=body)
        assert answer.status_code == 201, answer.text
        asked = await self.clients["deployer"].post("/deployer/v1/deployments", json={"asset": named(version)})
        assert asked.status_code == 202, asked.text
        request = UUID(asked.json()["request_id"])
        completed: DeployCompleted = await self.installation.wait_for(
            DeployCompleted, lambda event: event.request_id == request
        )
        await deployment(self.clients["router"], version)
        return completed


@asynccontextmanager
async def road(installation: Installation) -> AsyncIterator[Road]:
    ada, bea = installation.key("user:ada", "owner"), installation.key("user:bea", "owner")
    keys = {"deployer": signing_key(installation.folder / "deployer.pem")}
    async with AsyncExitStack() as stack:
        live = await stack.enter_async_context(traffic(installation, bea, keys))
        await installation.start("registry", "policy", "router")
        await installation.start("deployer", model_server_url=live.server.url, patience_s=10)
        clients = {
            name: await stack.enter_async_context(installation.client(name, bea))
            for name in ("policy", "deployer", "router")
        }
        mine = await stack.enter_async_context(installation.client("registry", ada))
        mine.headers["content-type"] = "application/json"
        registry = Registry(installation, ada, mine)
        await registry.upload(GOLDEN)
        yield Road(installation, registry, clients, live, await registry.register(a_dataset()))


async def test_a_guard_goes_with_its_version_from_the_submission_to_every_group_it_serves(
    installation: Installation,
) -> None:
    async with road(installation) as on:
        await what_is_no_guard_is_refused_with_its_field(on)
        plain = await on.submit(20)
        guarded = await on.submit(20, guardrails=[CAUTION])
        assert plain.asset.digest != guarded.asset.digest, "the same bytes with a guard are another version"
        assert (plain.guardrails, guarded.guardrails) == ((), (CAUTION,))
        first, second = await on.let_through(plain.asset), await on.let_through(guarded.asset)
        assert (first.guardrails, second.guardrails) == ((), (CAUTION,))
        await the_bundle_holds_it(on, second)
        await it_refuses_at_the_gateway_once_it_serves(on, plain.asset, guarded.asset)
        await the_group_may_only_tighten_it(on)


async def what_is_no_guard_is_refused_with_its_field(on: Road) -> None:
    """By HTTP and as an event alike."""
    bad = {**CAUTION, "action": "mask"}
    wrong = a_model("tumour").model_dump(mode="json") | {"guardrails": [bad]}
    answer = await on.registry.client.post("/registry/v1/submissions", json=wrong)
    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert problem["field"] == "body.guardrails" and problem["reason"].startswith("0.json_schema: what does not fit")
    event = a_model("tumour").model_copy(update={"guardrails": ({"name": "x"},)})
    await on.installation.publish(event, key=on.registry.key)
    refused = await on.installation.wait_for(AssetRefused, lambda said: said.submission_id == event.submission_id)
    assert (refused.code, refused.reason[:13]) == (Invalid.code, "guardrails: 0")


async def the_bundle_holds_it(on: Road, completed: DeployCompleted) -> None:
    path = FolderStore(on.installation.folder / "artefacts").path(completed.bundle)
    trusted = trusted_keys(on.installation.folder / "trust.json")
    assert b'"caution"' in open_verified(path, trusted).read("guardrails.json")


async def it_refuses_at_the_gateway_once_it_serves(on: Road, plain: AssetRef, guarded: AssetRef) -> None:
    client = on.clients["router"]
    made = await client.post("/router/v1/groups", json={"name": "live", "champion": named(plain), "reason": "first"})
    assert made.status_code == 201, made.text
    await on.live.until_group("live")
    answers = [await on.live.ask("live", row) for row in range(30)]
    assert {answer.status_code for answer in answers} == {200}
    said = [answer.json()["outputs"][0]["data"][0] for answer in answers]
    high, low = said.index(max(said)), said.index(min(said))
    assert said[low] < 0.5 < said[high]
    challenge = {"challengers": [{"asset": named(guarded), "weight_bp": 0}], "reason": "", "expected_revision": 1}
    assert (await client.put("/router/v1/groups/live/challengers", json=challenge)).status_code == 200
    promote = {"asset": named(guarded), "reason": "more careful", "expected_revision": 2}
    assert (await client.post("/router/v1/groups/live:promote", json=promote)).status_code == 200

    async def look() -> httpx.Response:
        return await on.live.ask("live", high)

    refused = await eventually(look, lambda answer: answer.status_code != 200, what="the guard")
    assert (refused.status_code, refused.json()["code"]) == (400, "guardrail-tripped")
    assert refused.json()["guardrail"] == "caution"
    assert (await on.live.ask("live", low)).status_code == 200


async def the_group_may_only_tighten_it(on: Road) -> None:
    path, client = "/router/v1/groups/live/settings/guardrails", on.clients["router"]
    looser = {"settings": {"guards": [{**CAUTION, "action": "flag"}]}, "reason": "", "expected_revision": 3}
    answer = await client.put(path, json=looser)
    assert (answer.status_code, answer.json()["code"], answer.json()["guard"]) == (422, "guard-weakened", "caution")
