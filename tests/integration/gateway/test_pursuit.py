"""What is done so that a request gets an answer: rules, failover, retries, breaker, hedges, probes, times, cache."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from services.router.domain import Group, Version, weigh
from shared.testing.installation import eventually

from .stub import GOOD
from .world import BODY, World, a_version

QUICK = {"retries": {"most": 2, "least": 100}}


def ref(version: Version) -> dict[str, Any]:
    return {"urn": version.urn, "version": version.version}


async def a_group(
    world: World, name: str, settings: dict[str, Any], one: str = "good", two: str = "good", weight_bp: int = 0
) -> Group:
    """Champion 1 behind the model `one`, challenger 2 behind `two`; FAILOVER in settings is to the challenger."""
    first, second = a_version(1, f"m-{name}"), a_version(2, f"m-{name}")
    await world.deploy(first, f"{one}.1-{name}")
    await world.deploy(second, f"{two}.2-{name}")
    group = await world.make_group(name, first)
    group = await world.move(weigh(group, [(second, weight_bp)], expected_revision=1), "weighted")
    if settings.get("failover") == "FAILOVER":
        settings = {**settings, "failover": [{"name": "eu-west-1", "targets": [{"version": ref(second)}]}]}
    return await world.configure(group, "routing", settings)


def told(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(row["tags"] or b"{}")
    return found


def outcomes(row: Any) -> list[str]:
    return [one["outcome"] for one in told(row)["attempts"]]


async def test_rules_decide_before_the_weights_and_the_row_tells(world: World, name: str) -> None:
    two = ref(a_version(2, f"m-{name}"))
    rules = [
        {"name": "beta", "when": [{"header": "x-cohort", "equals": "beta"}], "to": two},
        {"name": "elderly", "when": [{"attribute": "AGEP", "in": [90, 91.0]}], "to": two},
        {"name": "tests", "when": [{"unit": True, "prefix": "test-"}], "to": two},
        {"name": "deep", "when": [{"path": "inputs[0].parameters.try", "present": True}], "to": two},
        {"name": "gone", "when": [{"header": "x-gone", "present": True}], "to": {"urn": two["urn"], "version": 9}},
    ]
    await a_group(world, name, {"rules": rules})
    tensor = BODY["inputs"][0]  # type: ignore[index]
    elderly = {"inputs": [{**tensor, "data": [91]}]}  # type: ignore[dict-item]
    deep = {"inputs": [{**tensor, "parameters": {"try": None}}]}  # type: ignore[dict-item]
    await world.infer(name, x_cohort="beta")
    await world.infer(name, elderly)
    await world.infer(name, x_mintmark_unit="test-7")
    await world.infer(name, deep)
    await world.infer(name)
    await world.infer(name, x_gone="1")
    rows = await world.rows(name)
    assert [row["version"] for row in rows] == [2, 2, 2, 2, 1, 1]
    assert [told(row).get("route", {}).get("rule") for row in rows] == [
        "beta",
        "elderly",
        "tests",
        "deep",
        None,
        "gone",
    ]
    assert "no version of the group" in told(rows[5])["gave_way"]
    assert rows[4]["tags"] is None, "where the weights chose and nothing happened, there is nothing to tell"


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [("busy", "upstream-503"), ("limited", "upstream-429"), ("close-always", "upstream-failed"),
     ("cut", "upstream-failed"), ("stall", "upstream-timeout")],
)  # fmt: skip
async def test_what_may_help_is_tried_elsewhere(world: World, name: str, behaviour: str, outcome: str) -> None:
    attempt_s = 0.5 if behaviour == "stall" else 20
    await a_group(world, name, {"failover": "FAILOVER", "timeouts": {"attempt_s": attempt_s}}, behaviour)
    response = await world.infer(name)
    assert (response.status_code, response.content) == (200, GOOD)
    assert response.headers["x-mintmark-version"].endswith("@2")
    (row,) = await world.rows(name)
    assert (row["version"], row["arm"], row["status"], row["attempts"]) == (2, "challenger", 200, 2)
    assert outcomes(row) == [outcome, "ok"] and told(row)["failed_over"]
    assert told(row)["attempts"][1]["tier"] == "eu-west-1"


@pytest.mark.parametrize(("behaviour", "status"), [("teapot", 418), ("broken", 500), ("not-json", 502)])
async def test_the_models_own_word_is_never_asked_for_again(
    world: World, name: str, behaviour: str, status: int
) -> None:
    await a_group(world, name, {"failover": "FAILOVER"}, behaviour)
    assert (await world.infer(name)).status_code == status
    (row,) = await world.rows(name)
    assert (row["version"], row["attempts"]) == (1, 1)
    assert world.stub.seen[f"good.2-{name}"] == 0


async def test_the_last_failure_is_the_answer_when_nobody_is_left(world: World, name: str) -> None:
    await a_group(
        world, name, {"failover": "FAILOVER", "retries": {"most": 5, "same_target": False}}, "busy", "limited"
    )
    response = await world.infer(name)
    assert (response.status_code, response.json()) == (429, {"error": "slowly"})
    (row,) = await world.rows(name)
    assert (row["error_code"], outcomes(row)) == ("upstream-429", ["upstream-503", "upstream-429"])
    assert told(row)["no_more"] == "no other target"


async def test_one_target_may_be_asked_again(world: World, name: str) -> None:
    await a_group(world, name, QUICK, "busy")
    assert (await world.infer(name)).status_code == 503
    (row,) = await world.rows(name)
    assert (row["attempts"], told(row)["no_more"]) == (3, "as many attempts as allowed")
    assert world.stub.seen[f"busy.1-{name}"] == 3


async def test_retries_never_multiply_an_outage(world: World, name: str) -> None:
    settings = {"retries": {"most": 3, "budget_percent": 20, "window_s": 600, "least": 0}}
    await a_group(world, name, settings, "busy")
    for _ in range(30):
        assert (await world.infer(name)).status_code == 503
    assert world.stub.seen[f"busy.1-{name}"] == 36
    rows = await world.rows(name)
    assert sum(row["attempts"] for row in rows) == 36
    assert told(rows[0])["no_more"] == "the retry budget is spent"


async def test_a_breaker_of_a_single_target_fails_fast_and_lets_it_come_back(world: World, name: str) -> None:
    await a_group(world, name, {"breaker": {"consecutive_failures": 3, "open_s": 0.5}}, "busy")
    model = f"busy.1-{name}"
    assert [(await world.infer(name)).json().get("error") for _ in range(3)] == ["busy"] * 3
    refused = await world.infer(name)
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
        503, "targets-unavailable", "1",
    )  # fmt: skip
    assert world.stub.seen[model] == 3, "it is left alone"
    assert b"mintmark_gateway_breaker_open" in (await world.http.get("/metrics")).content
    world.stub.behaviours[model] = "good"

    async def asked() -> int:
        return (await world.infer(name)).status_code

    await eventually(asked, lambda status: status == 200, what="a trial that succeeds")
    assert await asked() == 200
    rows = await world.rows(name)
    fast = [row for row in rows if row["error_code"] == "targets-unavailable"]
    assert fast and all(row["attempts"] == 0 and row["version"] == 1 for row in fast)
    trial = next(row for row in rows if row["status"] == 200)
    assert told(trial)["attempts"][0]["breaker"] == "half-open"


async def test_an_open_breaker_sends_traffic_on_without_a_retry(world: World, name: str) -> None:
    settings = {"failover": "FAILOVER", "breaker": {"consecutive_failures": 2, "open_s": 60}}
    await a_group(world, name, {**settings, "retries": {"least": 2, "budget_percent": 0}}, "busy")
    assert [(await world.infer(name)).status_code for _ in range(10)] == [200] * 10
    assert world.stub.seen[f"busy.1-{name}"] == 2
    rows = await world.rows(name)
    assert [row["attempts"] for row in rows] == [2, 2] + [1] * 8
    assert told(rows[-1])["skipped"] == [{"to": f"mm:model/m-{name}@1", "why": "breaker open"}]


async def test_a_late_answer_is_hedged_and_the_first_one_counts(world: World, name: str) -> None:
    settings = {"hedge": {"percentile": 90, "at_least_ms": 30, "least_answers": 5}, "failover": "FAILOVER"}
    await a_group(world, name, {**settings, "retries": {"least": 100}})
    for _ in range(6):
        await world.infer(name)
    world.stub.behaviours[f"good.1-{name}"] = "stall"
    response = await world.infer(name)
    assert response.status_code == 200 and response.headers["x-mintmark-version"].endswith("@2")
    row = (await world.rows(name))[-1]
    assert outcomes(row) == ["abandoned", "ok"]
    assert told(row)["attempts"][1]["hedge"] is True


async def test_all_attempts_together_have_a_time(world: World, name: str) -> None:
    settings = {"timeouts": {"attempt_s": 1, "total_s": 1.5}, "retries": {"most": 9, "least": 100}}
    await a_group(world, name, settings, "stall")
    response = await world.infer(name)
    assert (response.status_code, response.json()["code"]) == (504, "upstream-timeout")
    (row,) = await world.rows(name)
    assert told(row)["no_more"] == "no time left" and row["attempts"] == 2


async def test_who_is_not_ready_is_asked_last(world: World, name: str) -> None:
    model = f"good.1-{name}"
    health = {"interval_s": 0.05, "unhealthy_after": 2, "timeout_s": 1}
    world.stub.unready.add(model)
    await a_group(world, name, {"failover": "FAILOVER", "health": health})

    async def served_by() -> str:
        return (await world.infer(name)).headers["x-mintmark-version"][-2:]

    await eventually(served_by, lambda version: version == "@2", what="the ready one to answer")
    row = (await world.rows(name))[-1]
    assert told(row)["skipped"] == [{"to": f"mm:model/m-{name}@1", "why": "not ready"}]
    world.stub.unready.discard(model)
    await eventually(served_by, lambda version: version == "@1", what="the champion to be ready again")


async def test_a_probe_alone_is_no_outage(world: World, name: str) -> None:
    models = [f"good.{number}-{name}" for number in (1, 2)]
    world.stub.unready.update(models)
    await a_group(world, name, {"failover": "FAILOVER", "health": {"interval_s": 0.05}})
    probed = lambda: asyncio.sleep(0, min(world.stub.probed[one] for one in models))  # noqa: E731
    await eventually(probed, lambda count: count > 4, what="some probes")
    assert (await world.infer(name)).status_code == 200


async def test_the_same_version_in_another_region(world: World, name: str) -> None:
    version = await world.deploy(a_version(1, f"m-{name}"), f"busy.{name}")
    await world.provide(f"eu-{name[:20]}", {"kind": "oip", "base_url": world.stub.url}, None)
    group = await world.make_group(name, version)
    target = {"provider": f"eu-{name[:20]}", "model": f"good.{name}/versions/1"}
    await world.configure(group, "routing", {"failover": [{"name": "eu-west-1", "targets": [target]}]})
    response = await world.infer(name)
    assert (response.status_code, response.headers["x-mintmark-version"]) == (200, str(version))
    (row,) = await world.rows(name)
    assert (row["arm"], outcomes(row)) == ("champion", ["upstream-503", "ok"])
    assert told(row)["attempts"][1]["via"].startswith("eu-") and "failed_over" not in told(row)


async def test_a_version_without_a_verified_approval_is_never_failed_over_to(world: World, name: str) -> None:
    first, forged = a_version(1, f"m-{name}"), a_version(2, f"m-{name}")
    await world.deploy(first, f"busy.{name}")
    await world.deploy(forged, f"good.{name}", approved=a_version(3, f"m-{name}"))
    group = await world.make_group(name, first)
    targets = [{"version": ref(forged)}, {"version": ref(a_version(9))}, {"provider": "nobody"}]
    await world.configure(group, "routing", {"failover": [{"name": "t", "targets": targets}]})
    assert (await world.infer(name)).status_code == 503
    assert world.stub.seen[f"good.{name}"] == 0


async def test_a_stream_that_fails_before_its_first_token_is_asked_for_elsewhere(world: World, name: str) -> None:
    world.stub.delay_s = 0.01
    await a_group(world, name, {"failover": "FAILOVER"}, "stream-none", "stream")
    response = await world.http.post(f"/v2/models/{name}/generate_stream", content=b'{"text_input": "hello"}')
    assert response.status_code == 200 and response.content.count(b"data:") == 5
    (row,) = await world.rows(name)
    assert (row["version"], row["attempts"], row["ttft_ms"] is not None) == (2, 2, True)


async def test_the_very_same_request_is_answered_from_the_cache(world: World, name: str) -> None:
    group = await a_group(world, name, {"cache": {"ttl_s": 60, "max_entries": 2}})
    first = await world.infer(name)
    spaced = orjson.dumps(BODY, option=orjson.OPT_INDENT_2)
    again = await world.infer(name, spaced)
    assert "x-mintmark-cache" not in first.headers
    assert (again.status_code, again.content, again.headers["x-mintmark-cache"]) == (200, GOOD, "hit")
    other = await world.infer(name, {**BODY, "id": "person-2"})
    assert "x-mintmark-cache" not in other.headers
    assert world.stub.seen[f"good.1-{name}"] == 2
    rows = await world.rows(name)
    assert [told(row).get("cache") for row in rows] == [None, "hit", None]
    assert [row["attempts"] for row in rows] == [1, 0, 1]
    assert (rows[1]["score"], rows[1]["prediction"], rows[1]["version"]) == (0.75, "1", 1)
    await world.configure(group, "routing", {"cache": {"ttl_s": 61}})
    assert "x-mintmark-cache" not in (await world.infer(name)).headers, "other settings begin anew"


async def test_a_failure_is_never_kept(world: World, name: str) -> None:
    await a_group(world, name, {"cache": {}}, "broken")
    for _ in range(2):
        assert "x-mintmark-cache" not in (await world.infer(name)).headers
    assert world.stub.seen[f"broken.1-{name}"] == 2


async def test_a_client_that_goes_away_leaves_no_trial_behind(world: World, name: str) -> None:
    world.stub.delay_s = 0.02
    model = f"busy.1-{name}"
    await a_group(world, name, {"breaker": {"consecutive_failures": 1, "open_s": 0.05}}, "busy")
    await world.infer(name)
    world.stub.behaviours[model] = "stream-forever"

    async def stream() -> int:
        async with world.http.stream(
            "POST", f"/v2/models/{name}/generate_stream", content=b'{"text_input": "hello"}'
        ) as response:
            return response.status_code

    await eventually(stream, lambda status: status == 200, what="a trial")
    world.stub.behaviours[model] = "good"
    await eventually(lambda: world.infer(name), lambda answer: answer.status_code == 200)
