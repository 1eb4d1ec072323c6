"""Batches over the router's own HTTP: who may begin, follow and cancel them, and what is refused."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson
import pytest
from router_story import asset, deploy, named

from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
GROUP = "/router/v1/groups/tumour"
FILES = "/router/v1/batch-files"
DATA = orjson.dumps({"id": "a", "x": 1.0}) + b"\n"
SPEC: dict[str, Any] = {"input": sha256(DATA), "format": "jsonl", "shape": "features"}


async def test_a_batch_is_begun_followed_and_cancelled_by_who_may(installation: Installation) -> None:
    owner = installation.key("user:owner", "owner")
    caller = installation.key("user:cora", "caller")
    viewer = installation.key("user:vera", "viewer")
    neighbour = installation.key("user:nina", "owner", workspace="other")
    # no gateway is there, so that batches wait
    await installation.start("router", gateway_url="http://127.0.0.1:9", batch_poll_s=0.05)
    async with installation.client("router", owner) as client:
        await deploy(installation, client, asset(1))
        made = await client.post("/router/v1/groups", json={"name": "tumour", "champion": named(asset(1))})
        assert made.status_code == 201, made.text
    async with installation.client("router", caller) as client:
        refused = await client.post(f"{GROUP}/batches", json=SPEC)
        assert (refused.status_code, refused.json()["code"]) == (422, "batch-refused"), refused.text
        wrong = await client.put(f"{FILES}/{sha256(b'other')}", content=DATA)
        assert (wrong.status_code, wrong.json()["code"]) == (422, "digest-mismatch")
        put = await client.put(f"{FILES}/{sha256(DATA)}", content=DATA)
        assert (put.status_code, put.json()) == (201, {"digest": sha256(DATA), "size": len(DATA)})
        assert (await client.get(f"{FILES}/{sha256(DATA)}")).content == DATA
        key = {"idempotency-key": "the-first"}
        begun = await client.post(f"{GROUP}/batches", json=SPEC, headers=key)
        assert begun.status_code == 202, begun.text
        again = await client.post(f"{GROUP}/batches", json=SPEC, headers=key)
        assert again.json()["id"] == begun.json()["id"]
        path = begun.headers["location"]

        async def look() -> dict[str, Any]:
            found: dict[str, Any] = (await client.get(path)).json()
            return found

        waiting = await eventually(look, lambda job: bool(job["waits_for"]), what="a batch that waits")
        assert (waiting["state"], waiting["who"], waiting["recorded"]) == ("running", "user:cora", 0)
        for more in ({"format": "csv"}, {"concurrency": 0}, {"concurrency": 65}, {"features": []}, {"inputs": "x"}):
            assert (await client.post(f"{GROUP}/batches", json={**SPEC, **more})).status_code == 422, more
        unknown = await client.get(f"{GROUP}/batches/{uuid4()}")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-batch")
        second = await client.post(f"{GROUP}/batches", json={**SPEC, "input": f"https://here{FILES}/{sha256(DATA)}"})
        assert second.json()["spec"]["input"] == sha256(DATA)
    async with installation.client("router", viewer) as client:
        assert (await client.get(path)).status_code == 200
        page = (await client.get(f"{GROUP}/batches", params={"max_results": 1})).json()
        rest = (await client.get(f"{GROUP}/batches", params={"page_token": page["next_page_token"]})).json()
        assert [one["id"] for one in (*page["items"], *rest["items"])] == [second.json()["id"], begun.json()["id"]]
        for denied in (
            await client.post(f"{GROUP}/batches", json=SPEC),
            await client.post(f"{path}:cancel"),
            await client.put(f"{FILES}/{sha256(DATA)}", content=DATA),
        ):
            assert denied.status_code == 403, denied.text
    async with installation.client("router", neighbour) as client:
        assert [
            (await client.get(url)).status_code for url in (path, f"{GROUP}/batches", f"{FILES}/{sha256(DATA)}")
        ] == [404] * 3
        assert (await client.post(f"{path}:cancel")).status_code == 404
    async with installation.client("router", caller) as client:
        assert (await client.post(f"{path}:cancel")).json()["cancelling"] in (True, False)
        await eventually(look_at(client, path), lambda job: job["state"] == "cancelled", what="the end")
        over = await client.post(f"{path}:cancel")
        assert (over.status_code, over.json()["code"]) == (409, "batch-over")


def look_at(client: Any, path: str) -> Any:
    async def look() -> dict[str, Any]:
        found: dict[str, Any] = (await client.get(path)).json()
        return found

    return look
