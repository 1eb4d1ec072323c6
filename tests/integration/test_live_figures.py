"""From rows and labels to the model's page and the prompt's ranking: router, registry and prompts over real Kafka."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from registry_story import a_model, model_bytes
from router_story import deploy, named
from test_router_comparison import AT, arrive, label, row

from shared.events.base import AssetRef
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(170)


async def published(prompts: httpx.AsyncClient, title: str) -> AssetRef:
    """A prompt's version, once the registry has it."""
    made = await prompts.post(f"/prompts/v1/prompts/{title}/versions", json={"text": f"{title} {{{{ x }}}}"})
    assert made.status_code == 201, made.text

    async def look() -> dict[str, Any]:
        return dict((await prompts.get(f"/prompts/v1/prompts/{title}")).json())

    found = await eventually(look, lambda one: one["state"] == "registered", what=f"{title} at the registry")
    return AssetRef(urn=f"mm:prompt/{found['name']}", version=found["asset_version"], digest=found["asset_digest"])


async def model_over(registry: httpx.AsyncClient, number: int, prompt: AssetRef) -> AssetRef:
    """A version of a model that closes over a prompt."""
    data = model_bytes(number)
    assert (await registry.put(f"/registry/v1/artefacts/{sha256(data)}", content=data)).status_code == 201
    event = a_model("answering", data, prompts=(prompt,))
    headers = {"content-type": "application/json"}
    answer = await registry.post("/registry/v1/submissions", content=event.model_dump_json(), headers=headers)
    assert answer.json()["state"] == "registered", answer.text
    found = (await registry.get(f"/registry/v1/assets/model/answering/versions/{answer.json()['version']}")).json()
    return AssetRef(urn=found["urn"], version=found["version"], digest=found["digest"])


async def test_what_answers_come_to_is_shown_next_to_the_model_and_ranks_its_prompt(installation: Installation) -> None:
    key = installation.key("user:ada", "owner")
    await installation.start("prompts", "registry")
    await installation.start("router", measured_every_s=0.1)
    async with AsyncExitStack() as stack:
        prompts, registry, router = [
            await stack.enter_async_context(installation.client(name, key))
            for name in ("prompts", "registry", "router")
        ]
        good, bad, _ = [await published(prompts, title) for title in ("careful", "hasty", "idle")]
        one, two = await model_over(registry, 1, bad), await model_over(registry, 2, good)
        await deploy(installation, router, one, two)
        assert (
            await router.post("/router/v1/groups", json={"name": "live", "champion": named(one)})
        ).status_code == 201
        half = {"challengers": [{"asset": named(two), "weight_bp": 5_000}], "expected_revision": 1}
        assert (await router.put(f"{AT}/challengers", json=half)).status_code == 200
        # Of 400 answers each, version 2 is right in nine of ten and version 1 in one of two.
        rows = [row(one if n % 2 else two, n, revision=2) for n in range(800)]
        await arrive(installation, rows)
        wrong_every = {1: 2, 0: 10}
        right = [(outcome.request_id, int(n // 2 % wrong_every[n % 2] > 0)) for n, (outcome, said) in enumerate(rows)]
        await label(router, right)

        async def page() -> list[dict[str, Any]]:
            found = (await registry.get("/registry/v1/assets/model/answering/versions/2")).json()
            return [one for group in found["live"] for one in group["figures"]]

        (shown,) = await eventually(
            page, lambda found: any("accuracy" in one["measures"] for one in found), what="figures next to the model"
        )
        view = (await router.get(f"{AT}/comparison")).json()
        compared = next(one for one in view["versions"] if one["version"] == 2)
        accuracy = shown["measures"]["accuracy"]
        assert (shown["requests"], shown["role"], accuracy["n"]) == (400, "challenger", 400)
        assert accuracy["value"] == pytest.approx(compared["accuracy"]) == pytest.approx(0.9)

        async def ranking() -> list[dict[str, Any]]:
            asked = {"source": "live", "measure": "accuracy"}
            return list((await prompts.get("/prompts/v1/ranking", params=asked)).json()["items"])

        ranked = await eventually(
            ranking, lambda items: sum(item["rank"] is not None for item in items) == 2, what="ranks"
        )
        assert [(item["title"], item["rank"], item["asset"], item["evidence"]) for item in ranked] == [
            ("careful", 1, str(two), "measured"),
            ("hasty", 2, str(one), "measured"),
            ("idle", None, None, "no evidence"),
        ]
        assert ranked[0]["measure"] == accuracy, "the registry and prompts were told the same"
