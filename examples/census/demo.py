"""Walks two real models down the whole road and prints each step with its evidence.

It plays an upstream pipeline and the people around it: it knows Kafka, the published JSON Schemas and the HTTP APIs,
and imports nothing of Mintmark. The addresses and the owner's key come from the environment (`mintmark env`).
"""

from __future__ import annotations

import asyncio
import json
import os
import time

import httpx
import pyarrow.parquet as pq
from catalog import marked, production_then, protected
from experiment import ramped, ruled, shadowed
from keeping import batched, capped, minimised
from live import CONCURRENCY, challenged, compared, live, looked_back, one_row, promoted
from pipeline import Kafka, Signer, new_trace
from road import approved, dataset, deployed, evaluated, refused, train_and_submit
from story import World, console, fail, first_free, make_key, named, tell
from train import DATA
from vendor import asked

WHO = {
    "pipeline": ("pipeline:census", "publisher"),
    "author": ("pipeline:census", "publisher", "approver"),
    "bea": ("user:bea", "release-manager"),
    "olga": ("user:olga", "operator", "approver"),
    "app": ("app:benefits", "caller"),
    "guest": ("app:guest", "caller"),
    "auditor": ("user:cyd", "auditor"),
}
"""Everybody who needs a key: the principal and its roles."""


async def run() -> None:
    needed = ("MINTMARK_URL", "MINTMARK_GATEWAY_URL", "MINTMARK_KAFKA_BOOTSTRAP", "MINTMARK_API_KEY")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        fail(f'{", ".join(missing)} not set: eval "$(mintmark env)" first')
    url = os.environ["MINTMARK_URL"]
    made = await asyncio.gather(*(asyncio.to_thread(make_key, *whose) for whose in WHO.values()))
    keys = {"owner": os.environ["MINTMARK_API_KEY"], **dict(zip(WHO, made, strict=True))}
    await asyncio.sleep(1.2)  # key rings read their file once a second
    limits = httpx.Limits(max_connections=CONCURRENCY + 4, max_keepalive_connections=CONCURRENCY + 4)
    async with (
        httpx.AsyncClient(base_url=url, timeout=60) as http,
        httpx.AsyncClient(base_url=os.environ["MINTMARK_GATEWAY_URL"], timeout=30, limits=limits) as gateway,
        Kafka(os.environ["MINTMARK_KAFKA_BOOTSTRAP"], Signer(keys["pipeline"]), url) as kafka,
    ):
        number = await first_free(http, {"authorization": f"Bearer {keys['owner']}"})
        world = World(
            http, gateway, kafka, keys, new_trace(),
            named("live-employment", number), named("employment", number), named("census-2015", number),
        )  # fmt: skip
        await protected(world)
        golden = await dataset(world)
        versions = await train_and_submit(world, golden)
        await evaluated(world, versions)
        await approved(world, versions[:2])
        await marked(world, versions[0], versions[2])
        unapproved = await deployed(world, versions[:2], versions[2])
        rows = await asyncio.to_thread(pq.read_table, DATA / "live_2016.parquet")
        first = await live(world, versions[:2], rows)
        await shadowed(world, versions[:2], rows)
        await refused(world, versions[2], unapproved)
        traffic = await challenged(world, versions[1], rows, first)
        await compared(world)
        await ruled(world, versions[:2], rows)
        moments = await promoted(world, versions[:2], rows)
        await looked_back(world, moments)
        await production_then(world, versions[1], golden)
        await one_row(world, traffic)
        await ramped(world, versions[:2], rows)
        await capped(world, versions[:2], rows)
        await minimised(world, rows)
        await batched(world, rows)
        await asked(world)
        await ledger(world)
        epilogue(world)


async def of_this_trace(world: World) -> list[str]:
    """Types of all ledger entries of this road, in order."""
    types: list[str] = []
    token: str | None = None
    while True:
        query = {"trace": world.trace_id, "max_results": 200, **({"page_token": token} if token else {})}
        page = await world.call("auditor", "GET", "/policy/v1/ledger", params=query)
        types += [entry["type"] for entry in page["items"]]
        token = page.get("next_page_token")
        if token is None:
            return types


async def ledger(world: World) -> None:
    """Every event of the road is in the hash chain, under one trace."""
    world.say("The ledger: every event, hash-chained, verified")
    for _ in range(60):
        types = await of_this_trace(world)
        if any(kind.startswith("group.rolled_back") for kind in types):
            break
        await asyncio.sleep(0.1)
    verified = await world.call("auditor", "GET", "/policy/v1/ledger/verify")
    tell(f"verified by the server: {json.dumps(verified)[:300]}")
    counts = {kind: types.count(kind) for kind in dict.fromkeys(types)}
    world.say(f"One trace for the whole road: {world.trace_id}")
    tell("  ".join(f"{kind.rpartition('.v')[0]} ×{count}" for kind, count in counts.items()))
    needed = {
        "asset.submitted.v1",
        "asset.registered.v1",
        "eval.completed.v1",
        "gate.decided.v1",
        "approval.decided.v1",
    }
    needed |= {"deploy.completed.v1", "group.promoted.v1", "group.rolled_back.v1"}
    missing = needed - set(types)
    if missing:
        fail(f"the ledger has no {', '.join(sorted(missing))} under this trace")


def epilogue(world: World) -> None:
    console.print(
        f"""
[bold green]The whole road took {time.monotonic() - world.began:.0f} s.[/] Everything is still up. To look around:

    eval "$(.venv/bin/mintmark env)"; export PATH="$PWD/.venv/bin:$PATH"
    mintmark status                                   what runs, and where
    mintmark events tail --type 'gate.*' --from-start every verdict as it went over Kafka
    mintmark ledger verify                            check the chain offline
    curl -H "Authorization: Bearer $MINTMARK_API_KEY" $MINTMARK_URL/registry/v1/assets/model/{world.model}
    curl -H "Authorization: Bearer $MINTMARK_API_KEY" $MINTMARK_URL/router/v1/groups/{world.group}/comparison
    mintmark down                                     stop it; the data stay in .mintmark
"""
    )


if __name__ == "__main__":
    asyncio.run(run())
