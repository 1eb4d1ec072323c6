"""Runs: signed configuration, metrics over steps, their end told once, lineage from data to version, comparison."""

from __future__ import annotations

from typing import Any

import pytest
from registry_story import ROWS, Registry, a_dataset, registry

from shared.events.upstream import RunCompleted
from shared.ids import digest_of
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)


async def started(it: Registry, **config: Any) -> dict[str, Any]:
    answer = await it.client.post("/registry/v1/runs", json={"name": "Credit PD", "config": config})
    assert answer.status_code == 201, answer.text
    run: dict[str, Any] = answer.json()
    return run


async def test_a_run_from_its_signed_configuration_to_a_version(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(ROWS)
        dataset = await it.register(a_dataset())
        config = {
            "commit": "abc123",
            "parameters": {"depth": 7, "rate": 0.1},
            "datasets": [{"urn": dataset.urn, "version": 1, "digest": dataset.digest}],
            "prompts": [],
        }
        run = await started(it, **config)
        assert run["config_digest"] == digest_of(config) and run["signer"] == {"id": "user:ada", "proven": True}
        path = f"/registry/v1/runs/{run['run_id']}"
        points = [{"key": "auc", "value": value, "step": step} for step, value in enumerate((0.5, 0.7, 0.9))]
        assert (await it.client.post(f"{path}/metrics", json={"metrics": points})).status_code == 204
        history = (await it.client.get(f"{path}/metrics/auc?page_size=2")).json()
        assert [point["value"] for point in history["items"]] == [0.5, 0.7]
        rest = await it.client.get(f"{path}/metrics/auc?page_size=2&page_token={history['next_page_token']}")
        assert [point["value"] for point in rest.json()["items"]] == [0.9]

        for _ in range(2):  # ended twice, told once
            ended = (await it.client.post(f"{path}/end", json={"status": "FINISHED"})).json()
        assert ended["status"] == "FINISHED" and ended["metrics"] == {"auc": 0.9} and ended["ended_at"]
        (said,) = await eventually(lambda: installation.events(RunCompleted), lambda seen: len(seen) == 1)
        assert (said.run_id, said.status, said.commit) == (run["run_id"], "finished", "abc123")
        assert said.metrics == {"auc": 0.9} and said.parameters == {"depth": 7, "rate": 0.1}

        # Registered by MLflow's route, the version hangs on the run, and the run on its data.
        mlflow = "/registry/api/2.0/mlflow"
        await it.client.post(f"{mlflow}/registered-models/create", json={"name": "Credit PD"})
        source = {"name": "Credit PD", "source": f"runs:/{run['run_id']}/model", "run_id": run["run_id"]}
        made = (await it.client.post(f"{mlflow}/model-versions/create", json=source)).json()["model_version"]
        found = (await it.client.get("/registry/v1/assets/model", params={"title": "Credit PD"})).json()["newest"]
        assert made["version"] == "1" and "not held" in found["undeployable"]
        node = f"{found['urn']}@1"

        async def upstream() -> set[str]:
            answer = await it.client.get("/registry/v1/lineage", params={"node": node, "direction": "ascendants"})
            return {one["id"] for one in answer.json()["nodes"]}

        wanted = {f"run:{run['run_id']}", str(dataset)}
        await eventually(upstream, lambda nodes: wanted <= nodes, what="dataset, run and version in one line")


async def test_runs_side_by_side_and_in_their_own_workspace(installation: Installation) -> None:
    other = installation.key("user:eve", "owner", workspace="other")
    async with registry(installation) as it:
        made = (await it.client.post("/registry/v1/experiments", json={"name": "trees"})).json()
        assert (await it.client.post("/registry/v1/experiments", json={"name": "trees"})).status_code == 409
        one, two = (
            await started(it, parameters={"depth": 1, "seed": 7}),
            await started(it, parameters={"depth": 2, "seed": 7}),
        )
        for run, value in ((one, 0.5), (two, 0.6)):
            body = {"metrics": [{"key": "auc", "value": value}]}
            await it.client.post(f"/registry/v1/runs/{run['run_id']}/metrics", json=body)
        asked = {"run": [one["run_id"], two["run_id"]]}
        table = (await it.client.get("/registry/v1/runs:compare", params=asked)).json()
        rows = {(row["of"], row["key"]): (row["values"], row["differs"]) for row in table["rows"]}
        assert rows["parameter", "depth"] == ([1, 2], True) and rows["parameter", "seed"] == ([7, 7], False)
        assert rows["metric", "auc"] == ([0.5, 0.6], True)
        assert len((await it.client.get("/registry/v1/runs")).json()["items"]) == 2

        async with installation.client("registry", other) as stranger:
            path = f"/registry/v1/runs/{one['run_id']}"
            assert (await stranger.get(path)).status_code == 404
            assert (await stranger.get(f"{path}/metrics/auc")).status_code == 404
            assert (await stranger.post(f"{path}/end", json={"status": "KILLED"})).status_code == 404
            assert (await stranger.get("/registry/v1/runs:compare", params=asked)).status_code == 404
            assert (await stranger.post("/registry/v1/runs", json={"experiment": made["id"]})).status_code == 404
            assert (await stranger.get("/registry/v1/runs")).json()["items"] == []
        assert (await it.client.get(f"/registry/v1/runs/{one['run_id']}")).json()["status"] == "RUNNING"
