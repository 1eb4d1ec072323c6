"""Who serves: only what was approved, by the weights, through promotions under load."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx

from services.router.domain import Group, Version, promote, weigh
from shared.testing.installation import eventually

from .world import STRANGER, WITHIN_S, World, a_version


async def test_a_version_without_a_valid_approval_of_its_digest_gets_no_traffic_and_is_reported(
    world: World, name: str
) -> None:
    forged = await world.deploy(a_version(1), signer=STRANGER)
    flipped = a_version(2)
    await world.deploy(flipped, approved=Version(flipped.urn, 2, "sha256:" + "f" * 64))
    moved = a_version(3)
    await world.deploy(moved, approved=Version(moved.urn, 4, moved.digest))
    foreign = await world.deploy(a_version(4), approved_in="other")
    for number, version in enumerate((forged, flipped, moved, foreign)):
        await world.make_group(f"{name}-{number}", version)
        response = await world.infer(f"{name}-{number}")
        assert (response.status_code, response.json()["code"]) == (503, "version-not-servable")
        assert [row["error_code"] for row in await world.rows(f"{name}-{number}")] == ["version-not-servable"]
    refused = {entry["version"]: entry["reason"] for entry in (await world.http.get("/readyz")).json()["refused"]}
    assert "signature" in refused[str(forged)]
    assert "binds to sha256:" + "f" * 64 in refused[str(flipped)]
    assert "is of" in refused[str(moved)]
    assert "workspace other" in refused[str(foreign)]
    assert "mintmark_gateway_refused_versions 0.0" not in (await world.http.get("/metrics")).text


async def test_a_flipped_digest_in_the_database_takes_a_serving_version_out(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    group = await world.make_group(name, version)
    assert (await world.infer(name)).status_code == 200
    digest = "sha256:" + "e" * 64
    await world.db.execute(
        "UPDATE served_version SET digest = $2, changed_at = clock_timestamp() WHERE urn = $1", version.urn, digest
    )
    await world.move(
        Group(name, "default", group.revision + 1, Version(version.urn, version.version, digest)), "promoted"
    )
    await eventually(lambda: world.infer(name), lambda answer: answer.status_code == 503, what="taken out")


async def test_a_refused_challenger_gives_way_to_the_champion(world: World, name: str) -> None:
    champion, challenger = await world.deploy(a_version(5)), await world.deploy(a_version(16), signer=STRANGER)
    group = await world.make_group(name, champion)
    weighted = await world.move(weigh(group, [(challenger, 10_000)], expected_revision=1), "weighted")
    await world.until_served(weighted)
    assert (await world.infer(name)).headers["x-mintmark-version"] == str(champion)


async def test_traffic_follows_the_weights_and_a_unit_keeps_its_version(world: World, name: str) -> None:
    champion, challenger = await world.deploy(a_version(5)), await world.deploy(a_version(16))
    group = await world.make_group(name, champion)
    weighted = await world.move(weigh(group, [(challenger, 5_000)], expected_revision=1), "weighted")
    await world.until_served(weighted)
    first = {u: (await world.infer(name, x_mintmark_unit=u)).headers["x-mintmark-version"] for u in map(str, range(60))}
    again = {u: (await world.infer(name, x_mintmark_unit=u)).headers["x-mintmark-version"] for u in first}
    assert first == again
    assert 10 <= Counter(first.values())[str(challenger)] <= 50


async def test_a_promotion_under_load_loses_no_request_and_reroutes_all(world: World, name: str) -> None:
    champion, challenger = await world.deploy(a_version(5)), await world.deploy(a_version(16), "slow")
    world.stub.delay_s = 0.02
    group = await world.make_group(name, champion)
    answers: list[httpx.Response] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            answers.append(await world.infer(name))

    askers = [asyncio.create_task(ask()) for _ in range(8)]
    await asyncio.sleep(0.3)
    began = time.perf_counter()
    promoted = await world.move(promote(group, challenger, expected_revision=1), "promoted")
    await world.until_served(promoted)
    in_force_s = time.perf_counter() - began
    before = len(answers)
    async with asyncio.timeout(WITHIN_S):
        while len(answers) < before + 10 * len(askers):
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*askers)
    assert {answer.status_code for answer in answers} == {200}
    print(f"in force {in_force_s * 1000:.0f} ms after the call")
    assert {answer.headers["x-mintmark-version"] for answer in answers[before + 8 :]} == {str(challenger)}
    assert len(await world.rows(name)) == len(answers)


async def test_a_change_is_found_by_polling_when_the_notice_is_lost(world: World, name: str) -> None:
    champion, challenger = await world.deploy(a_version(5)), await world.deploy(a_version(16))
    group = await world.make_group(name, champion)
    await world.db.execute("ALTER TABLE model_group DISABLE TRIGGER tell_gateways")
    try:
        promoted = await world.move(promote(group, challenger, expected_revision=1), "promoted")
        await world.until_served(promoted)
    finally:
        await world.db.execute("ALTER TABLE model_group ENABLE TRIGGER tell_gateways")
