"""The catalog: names that move only to what was let through, what was production at T, and who is affected."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from story import World, fail, now, tell, until_known

CHAMPION = "champion"


async def protected(world: World) -> None:
    """Which names are protected is policy; in a fresh workspace none is."""
    body = {"aliases": [CHAMPION], "labels": ["production"], "stages": ["production"]}
    reason = {"reason": "nothing is called production that was not let through"}
    await world.call("olga", "PUT", "/policy/v1/protection", params=reason, json=body)
    await until_known(lambda: world.call("olga", "GET", "/registry/v1/protection"), CHAMPION)


async def marked(world: World, version: dict[str, Any], rejected: dict[str, Any]) -> None:
    """The names move to what was approved; what the gate rejected does not get them."""
    world.say("Called champion and production: protected names, which a rejected version does not get")
    answer = await _point(world, rejected)
    if answer != "protected":
        fail(f"the rejected version could be called {CHAMPION}: {answer}")
    await _until_heard(world, version)
    await _enter_production(world, version, "first of its kind")


async def production_then(world: World, version: dict[str, Any], golden: dict[str, Any]) -> None:
    """Another version takes its place; what was there before, who moved it, and what hangs on the dataset."""
    world.say("What was production at T, who moved it, and what hangs on the dataset")
    before = now()
    await asyncio.sleep(0.01)
    await _point(world, version)
    await _enter_production(world, version, "better on live rows")
    path = f"/registry/v1/assets/model/{world.model}/production"
    for moment in (before, now()):
        found = await world.call("auditor", "GET", path, params={"at": moment})
        tell(
            f"{moment[11:23]}  version {found['version']} in production, moved there by {found['who']['id']}: "
            f"“{found['reason']}”"
        )
    node = f"{golden['urn']}@{golden['version']}"
    began = time.monotonic()
    found = await world.call("auditor", "GET", "/registry/v1/lineage/impact", params={"node": node})
    took_ms = (time.monotonic() - began) * 1000
    counts = "  ".join(f"{kind} ×{count}" for kind, count in found["counts"].items())
    tell(f"if {node} were poisoned: {counts}  [dim]({took_ms:.0f} ms)[/]")
    for part in found["serving"]:
        share = f"{part['weight_bp'] / 100:.0f} %"
        tell(f"  group {part['group']} answers with {part['version']} as {part['role']}, {share} of its traffic")
    if world.group not in {part["group"] for part in found["serving"]}:
        fail("the impact of the dataset does not reach the group that serves its models")


async def _until_heard(world: World, version: dict[str, Any]) -> None:
    """The registry hears of an approval a moment after it was given."""
    for _ in range(200):
        if (said := await _point(world, version)) != "protected":
            if said is not None:
                fail(f"{CHAMPION} could not be moved to what was approved: {said}")
            return
        await asyncio.sleep(0.05)
    fail("the registry did not hear of the approval within 10 s")


async def _point(world: World, version: dict[str, Any]) -> str | None:
    """Move the alias; the code of the refusal, if it is one."""
    path = f"/registry/v1/assets/model/{world.model}/aliases/{CHAMPION}"
    known = await world.http.get(path, headers=world.headers("bea"))
    match = {"if-match": known.headers["etag"]} if known.is_success else {"if-none-match": "*"}
    body = {"version": version["version"], "reason": "figures and fairness reviewed"}
    answer = await world.http.put(path, json=body, headers={**world.headers("bea"), **match})
    if answer.is_success:
        tell(f"{CHAMPION} → [cyan]{version['urn']}@{version['version']}[/]")
        return None
    problem = answer.json()
    if problem["code"] == "protected" and "rejects" in problem["detail"]:
        tell(f"[red]{answer.status_code} {problem['code']}[/]: {problem['detail'][:160]}")
    return str(problem["code"])


async def _enter_production(world: World, version: dict[str, Any], reason: str) -> None:
    path = f"/registry/v1/assets/model/{world.model}/versions/{version['version']}/stage"
    etag = (await world.http.get(path, headers=world.headers("bea"))).headers["etag"]
    body = {"stage": "production", "reason": reason}
    moved = await world.call("bea", "PUT", path, json=body, headers={"if-match": etag})
    tell(f"stage {moved['before']} → [green]production[/] by {moved['who']['id']}")
