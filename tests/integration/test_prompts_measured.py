"""A proposal from end to end: proposed, registered, both versions measured through the real gateway, compared."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import guide
import httpx
import pytest
from evaluations_story import GOLDEN, as_parquet, golden_rows
from oracle import Oracle
from prompts_story import at
from router_story import decided, named, statement, traffic

from services.router.gateway.testing.stub import served
from shared.artefacts import open_store
from shared.events.base import AssetRef
from shared.events.policy import GateDecided
from shared.events.upstream import AssetSubmitted, DatasetFile, Manifest
from shared.ids import new_id, sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(170)


async def assistant(installation: Installation, client: httpx.AsyncClient, upstream: int) -> None:
    """A group at the gateway whose model somebody else runs (connect-a-provider.md)."""
    provider = {"name": "acme", "kind": "openai-compatible", "base_url": f"http://127.0.0.1:{upstream}/v1"}
    answer = await client.post("/router/v1/providers", json=provider)
    assert answer.status_code == 201, answer.text
    version = AssetRef(urn="mm:vendor-model/assistant", version=1, digest=sha256(b"assistant"))
    await installation.publish(decided(version, "approved", statement(installation, version)), source="mintmark/policy")
    champion = {**named(version), "upstream": {"provider": "acme", "model": "large"}}
    made = await eventually(
        lambda: client.post("/router/v1/groups", json={"name": "assistant", "champion": champion}),
        lambda answer: answer.status_code == 201,
        what="the approval",
    )
    assert made.status_code == 201


async def submit_golden(installation: Installation) -> None:
    content = as_parquet(golden_rows(120))
    await open_store(installation.platform()).put_bytes(content)
    file = DatasetFile(path="g.parquet", digest=sha256(content), size=len(content), rows=120, split="golden")
    manifest = Manifest(files=(file,), label="label", source="test", licence="CC0-1.0")
    event = AssetSubmitted(submission_id=new_id(), kind="dataset", name=GOLDEN.urn.split("/")[1], manifest=manifest)
    await installation.publish(event)


async def test_a_candidate_is_measured_beside_production_by_a_group_of_the_gateway(
    installation: Installation, tmp_path: Path
) -> None:
    """By the commands of docs/how-to/manage-prompts.md, as they stand there."""
    key = installation.key("user:ada", "owner")
    await installation.make_topics()
    oracle = Oracle()
    async with traffic(installation, key) as live, served(oracle) as upstream:
        gateway = str(live.http.base_url).rstrip("/")
        await installation.start("registry", "prompts", "policy")
        await installation.start("router", gateway_url=gateway)
        await installation.start(
            "evaluator", require_approved_datasets=False, gateway_url=gateway, gateway_key=key, gateway_pause_s=1
        )
        async with (
            installation.client("prompts", key) as prompts,
            installation.client("registry", key) as registry,
            installation.client("router", key) as router,
        ):
            await assistant(installation, router, upstream)
            await submit_golden(installation)
            await live.until_group("assistant")

            async def dataset() -> int:
                return (await registry.get("/registry/v1/assets/dataset/capitals/versions/1")).status_code

            await eventually(dataset, lambda status: status == 200, what="the golden set")
            async with guide.served(installation, "prompts") as url:
                environment = {
                    "MINTMARK_URL": url, "MINTMARK_API_KEY": key, "HOME": str(tmp_path),
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                }  # fmt: skip
                block = guide.blocks("manage-prompts.md", "sh")[-1]
                said = await guide.run(environment, "bash", "-euo", "pipefail", "-c", f"cd {tmp_path}\n{block}")
            assert "exact_match 0.0 → 1.0 better" in said
            (proposal,) = (await prompts.get(at("capitals", "/proposals"))).json()
            comparisons = await prompts.get(f"/prompts/v1/proposals/{proposal['proposal_id']}/comparisons")
            (found,) = comparisons.json()
            assert found["status"] == "measured", found
            for side in ("head", "base"):
                one = found[side]
                assert (one["model"], one["rows"], one["errors"]) == ("assistant", 120, 0)
            verdicts = {name: one["verdict"] for name, one in found["measures"].items()}
            assert verdicts["exact_match"] == verdicts["token_f1"] == verdicts["tokens_per_answer"] == "better"
            assert "answer_latency_ms.p50" in verdicts
            assert {asked["model"] for asked in oracle.asked} == {"large"} and len(oracle.asked) == 240

            # Policy judged both by the gate of tasks that have none: held for a person, as prompts were before.
            gates = await eventually(lambda: installation.events(GateDecided), lambda all: len(all) >= 2)
            assert {gate.verdict for gate in gates} == {"review"}
            # The registry shows it beside the prompt.
            version = f"/registry/v1/assets/prompt/{proposal['name']}/versions"

            async def evaluations() -> Any:
                return (await registry.get(f"{version}/2")).json()["evaluations"]

            (shown,) = await eventually(evaluations, bool)
            assert shown["measures"]["exact_match"]["value"] == 1
            ranking = (await prompts.get("/prompts/v1/ranking", params={"prompt": "capitals"})).json()
            assert ranking["items"][0]["evidence"] == "measured"
