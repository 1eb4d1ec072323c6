"""The third chapter: a shadow, a rule, and a ramp that measures and promotes by itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from live import check, drive, feedback
from story import World, etag_of, fail, tell, version_of

SHADOWED_ROWS = 200
RAMP_S = 20.0


async def shadowed(world: World, versions: list[dict[str, Any]], rows: Any) -> None:
    """The new version answers real requests before anybody sees its answers."""
    world.say("A shadow: the 16-feature version is sent half of the requests, and nobody sees its answers")
    path = f"/router/v1/groups/{world.group}"
    body = {"shadows": [{"asset": versions[1], "share_bp": 5_000}], "reason": "a look before anybody depends on it"}
    await world.call("bea", "PUT", f"{path}/shadows", json=body, headers={"if-match": await etag_of(world)})
    await asyncio.sleep(1.0)
    traffic = await drive(world, rows, 0, SHADOWED_ROWS)
    check(traffic, "traffic beside a shadow")
    if {version_of(version) for _, _, version, _ in traffic.answers} != {str(versions[0]["version"])}:
        fail("a caller was answered by the shadow")
    for _ in range(40):
        query = {"version": versions[1]["version"], "asset": versions[1]["urn"], "max_results": 200}
        page = await world.call("auditor", "GET", f"{path}/inferences", params=query)
        if len(page["items"]) > SHADOWED_ROWS // 3:
            break
        await asyncio.sleep(0.1)
    row = page["items"][0]
    tell(f"{len(traffic.answers)} answers, all of version {versions[0]['version']}; the shadow has rows of its own:")
    tell(f"{row['request_id']}: version {row['version']}, score {row['score']:.4f}, {row['latency_ms']:.2f} ms")
    body = {"shadows": [], "reason": "seen enough"}
    await world.call("bea", "PUT", f"{path}/shadows", json=body, headers={"if-match": await etag_of(world)})


async def ruled(world: World, versions: list[dict[str, Any]], rows: Any) -> None:
    """A header chooses the challenger; and the group is told what to do when an answer is late or does not come."""
    world.say("A rule sends the beta's requests to the challenger, and every decision can be asked for")
    path = f"/router/v1/groups/{world.group}"
    version = {"urn": versions[1]["urn"], "version": versions[1]["version"]}
    settings = {
        "rules": [{"name": "beta", "when": [{"header": "x-cohort", "equals": "beta"}], "to": version}],
        "timeouts": {"attempt_s": 2, "total_s": 5},
        "breaker": {"consecutive_failures": 5, "open_s": 2},
        "retries": {"most": 1, "budget_percent": 20},
    }
    body = {"settings": settings, "reason": "the beta begins"}
    headers = {"if-match": await etag_of(world)}
    await world.call("olga", "PUT", f"{path}/settings/routing", json=body, headers=headers)
    await asyncio.sleep(1.0)
    traffic = await drive(world, rows, 0, 1, headers={"x-cohort": "beta"})
    check(traffic, "the beta's request")
    request_id, _, served, _ = traffic.answers[0]
    if version_of(served) != str(version["version"]):
        fail(f"the rule did not send the request to version {version['version']}")
    for _ in range(20):
        answer = await world.http.get(f"{path}/inferences/{request_id}/why", headers=world.headers("auditor"))
        if answer.status_code != 404:  # a row is queryable within a second
            break
        await asyncio.sleep(0.1)
    why = answer.raise_for_status().json()
    tell(f"why {request_id}? {why['explanation']}")


async def ramped(world: World, versions: list[dict[str, Any]], rows: Any) -> None:
    """A plan moves the traffic, measures, promotes, and watches on."""
    world.say("The same once more, by a plan: 20 %, measured, 60 %, measured, promoted by itself, watched")
    path = f"/router/v1/groups/{world.group}"
    measured = {"metric": "error_rate", "of": "challenger", "success": {"max": 0.05}, "interval": "1s", "count": 1}
    plan = {
        "challenger": versions[1],
        "steps": [{"setWeight": 20}, {"analysis": measured}, {"setWeight": 60}, {"analysis": measured}],
        "watch": {"duration": "1s", "analyses": [measured]},
    }
    stopping = asyncio.Event()
    running = asyncio.create_task(drive(world, rows, 0, len(rows), stopping))
    try:
        await asyncio.sleep(0.5)
        await world.call("bea", "POST", f"{path}/ramp", json={"plan": plan, "reason": "by the book"})
        for _ in range(int(RAMP_S * 5)):
            ramp = await world.call("bea", "GET", f"{path}/ramp")
            if ramp["phase"] not in ("running", "watching"):
                break
            await asyncio.sleep(0.2)
    finally:
        stopping.set()
        traffic = await running
    check(traffic, "traffic under the ramp")
    await feedback(world, traffic)
    for entry in reversed(ramp["log"]):
        details = ", ".join(f"{name} {json.dumps(value)}" for name, value in entry["details"].items())
        tell(f"{entry['at'][11:23]}  {entry['what']}  [dim]{details[:140]}[/]")
    if ramp["promoted_revision"] is None:
        fail(f"the ramp did not promote within {RAMP_S:.0f} s: {ramp['phase']}, {ramp['why']}")
    tell(f"{len(traffic.answers):,} requests meanwhile, [green]0 failed[/]: {traffic.by_version()}")
