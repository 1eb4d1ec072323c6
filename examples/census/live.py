"""The second chapter: real rows through a model group, from its first champion to promotion and back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from rich.table import Table
from story import World, console, etag_of, fail, now, tell, until_known, version_of
from train import ALL_FEATURES

FIRST_ROWS, MORE_ROWS = 600, 1_600
CONCURRENCY = 12


@dataclass
class Traffic:
    """What came back: request ids, versions, failures."""

    answers: list[tuple[str, int, str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def by_version(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for _, _, version, _ in self.answers:
            counts[version] = counts.get(version, 0) + 1
        return counts


def requests_of(rows: Any, start: int, stop: int) -> Iterable[tuple[str, int, dict[str, Any]]]:
    """Open Inference Protocol requests: one row each, the household's number as its unit."""
    columns = {name: rows[name].to_pylist() for name in ALL_FEATURES}
    labels = rows["employed"].to_pylist()
    for number in range(start, stop):
        inputs = [
            {"name": name, "shape": [1, 1], "datatype": "FP64", "data": [float(values[number])]}
            for name, values in columns.items()
        ]
        yield f"person-{number}", int(labels[number]), {"inputs": inputs}


async def drive(
    world: World,
    rows: Any,
    start: int,
    stop: int,
    stopping: asyncio.Event | None = None,
    headers: dict[str, str] | None = None,
) -> Traffic:
    """Send rows through the gateway; ends early when `stopping` is set."""
    traffic = Traffic()
    always = {"authorization": f"Bearer {world.keys['app']}", **(headers or {})}
    requests = iter(requests_of(rows, start, stop))

    async def worker() -> None:
        for unit, label, body in requests:
            if stopping is not None and stopping.is_set():
                return
            sent = {**always, "x-mintmark-unit": unit}
            try:
                answer = await world.gateway.post(f"/v2/models/{world.group}/infer", json=body, headers=sent)
            except httpx.HTTPError as error:
                traffic.failures.append(repr(error))
                continue
            if answer.status_code != 200:
                traffic.failures.append(f"{answer.status_code} {answer.text[:200]}")
                continue
            found = answer.headers
            traffic.answers.append(
                (found["x-mintmark-request-id"], label, found["x-mintmark-version"], time.monotonic())
            )

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return traffic


async def feedback(world: World, traffic: Traffic) -> None:
    """The true labels, as they would come weeks later."""
    path = f"/router/v1/groups/{world.group}/feedback"
    for start in range(0, len(traffic.answers), 5_000):
        part = traffic.answers[start : start + 5_000]
        body = [{"request_id": request, "metric": "label", "value": label} for request, label, _, _ in part]
        await world.call("app", "POST", path, json=body)


def check(traffic: Traffic, what: str) -> None:
    if traffic.failures:
        fail(f"{what}: {len(traffic.failures)} requests failed, the first: {traffic.failures[0]}")


async def live(world: World, versions: list[dict[str, Any]], rows: Any) -> Traffic:
    """The group and its champion; every request a row."""
    champion, challenger = versions
    world.say(f"Model group {world.group}: the 5-feature version is champion, {FIRST_ROWS:,} rows of 2016 go through")
    await until_known(lambda: world.call("bea", "GET", "/router/v1/deployments"), challenger["digest"])
    body = {"name": world.group, "champion": champion, "reason": "first champion"}
    await world.call("bea", "POST", "/router/v1/groups", json=body)
    await answering(world)
    began = time.monotonic()
    first = await drive(world, rows, 0, FIRST_ROWS)
    check(first, "first traffic")
    rate = len(first.answers) / (time.monotonic() - began)
    tell(f"{len(first.answers):,} answers, 0 failed, {rate:,.0f}/s: {first.by_version()}")

    return first


async def challenged(world: World, challenger: dict[str, Any], rows: Any, first: Traffic) -> Traffic:
    """The challenger's ramp, by hand."""
    world.say("The 16-feature version joins as challenger: 10 %, then 50 %; nobody who saw it flips back")
    everything = Traffic(list(first.answers))
    half, whole = FIRST_ROWS + MORE_ROWS // 2, FIRST_ROWS + MORE_ROWS
    for percent, start, stop in ((10, FIRST_ROWS, half), (50, half, whole)):
        body = {"challengers": [{"asset": challenger, "weight_bp": percent * 100}], "reason": f"ramp to {percent} %"}
        path = f"/router/v1/groups/{world.group}/challengers"
        await world.call("bea", "PUT", path, json=body, headers={"if-match": await etag_of(world)})
        await asyncio.sleep(1.0)  # a change is in force at every gateway within a second
        traffic = await drive(world, rows, start, stop)
        check(traffic, f"traffic at {percent} %")
        everything.answers += traffic.answers
        tell(f"{percent:2} %: {traffic.by_version()} of {len(traffic.answers):,}")
    await feedback(world, everything)
    tell(f"{len(everything.answers):,} true labels sent as feedback")
    return everything


async def answering(world: World) -> None:
    """Wait until the gateway serves the group."""
    for _ in range(100):
        answer = await world.gateway.get(f"/v2/models/{world.group}/ready", headers=world.headers("app"))
        if answer.status_code == 200:
            return
        await asyncio.sleep(0.05)
    fail(f"the gateway does not serve {world.group} within 5 s: {answer.text[:200]}")


async def compared(world: World) -> dict[str, Any]:
    """Champion and challenger side by side, on live rows with their labels."""
    world.say("The comparative view: both versions on live rows, with their true labels")
    for _ in range(40):
        view = await world.call("bea", "GET", f"/router/v1/groups/{world.group}/comparison")
        if sum(arm.get("labelled", 0) for arm in view["versions"]) >= FIRST_ROWS + MORE_ROWS:
            break
        await asyncio.sleep(0.25)
    table = Table(box=None, pad_edge=False)
    figures = ("n", "errors", "labelled", "accuracy", "auc", "mean_score", "latency_ms_p50", "latency_ms_p99")
    for column in ("", *(name.replace("latency_", "").replace("mean_", "") for name in figures)):
        table.add_column(column, justify="right", no_wrap=True)
    for arm in view["versions"]:
        shown = [arm.get(name) for name in figures]
        numbers = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in shown)
        table.add_row(f"    {arm['role']} {arm['version']}", *numbers)
    console.print(table)
    return dict(view)


async def promoted(world: World, versions: list[dict[str, Any]], rows: Any) -> dict[str, str]:
    """Promote while traffic runs, roll back while traffic runs: both timed, neither loses a request."""
    old, new = (str(version["version"]) for version in versions)
    path = f"/router/v1/groups/{world.group}"
    world.say("Promoted while traffic runs")
    moments = {f"version {old} is champion": now()}
    stopping = asyncio.Event()
    running = asyncio.create_task(drive(world, rows, FIRST_ROWS + MORE_ROWS, len(rows), stopping))
    await asyncio.sleep(1.0)
    body = {"asset": versions[1], "reason": "better AUC and accuracy on live rows"}
    began = time.monotonic()
    await world.call("bea", "POST", f"{path}:promote", json=body, headers={"if-match": await etag_of(world)})
    promotion = time.monotonic()
    tell(f"the call took {(promotion - began) * 1000:.0f} ms")
    await asyncio.sleep(2.0)
    moments[f"version {new} is champion"] = now()
    back_began = time.monotonic()
    reason = {"reason": "shown in the demo: back in one call"}
    await world.call("bea", "POST", f"{path}:rollback", json=reason, headers={"if-match": await etag_of(world)})
    back = time.monotonic()
    await asyncio.sleep(1.5)
    moments[f"version {old} is champion again"] = now()
    stopping.set()
    traffic = await running
    check(traffic, "traffic during promotion and rollback")
    between = [version_of(version) for _, _, version, at in traffic.answers if promotion + 1.0 < at < back_began]
    rerouted = between.count(new) / max(1, len(between))
    tell(
        f"{len(traffic.answers):,} requests meanwhile, [green]0 failed[/]; "
        f"from one second after the call on, {rerouted:.0%} of {len(between):,} went to version {new}"
    )
    if rerouted < 1:
        fail("not every request was re-routed within a second of the promotion")
    world.say("Rolled back, timed")
    late = [at for _, _, version, at in traffic.answers if at > back_began and version_of(version) == new]
    gone_ms = (max(late) - back_began) * 1000 if late else 0.0
    took_ms = (back - back_began) * 1000
    tell(f"the call took {took_ms:.0f} ms; the last answer of version {new} came {gone_ms:.0f} ms after it began")
    return moments


async def looked_back(world: World, moments: dict[str, str]) -> None:
    """What served at T: one call for any moment."""
    world.say("What served at T")
    for what, moment in moments.items():
        found = await world.call("auditor", "GET", f"/router/v1/groups/{world.group}/at", params={"time": moment})
        champion = found["champion"]
        served = f"{champion['urn']}@{champion['version']}"
        tell(f"{moment[11:23]}  revision {found['revision']}: champion {served}  [dim]({what})[/]")


async def one_row(world: World, traffic: Traffic) -> None:
    """One inference row, with SHAP values that add up to the score."""
    world.say("One inference row, with SHAP values that add up to its score")
    request_id = traffic.answers[-1][0]
    row = await world.call("auditor", "GET", f"/router/v1/groups/{world.group}/inferences/{request_id}")
    shap = row["shap"]
    base, values, names = flat(shap["base"])[0], flat(shap["values"]), shap["features"]
    score = row["score"]
    raw = math.log(score / (1 - score))
    total = base + float(np.sum(values))
    figures = f"score {score:.4f}, label {row.get('label')}, {row['latency_ms']:.2f} ms"
    tell(f"request {request_id}: version {row['version']}, {figures}")
    top = sorted(zip(names, values, strict=True), key=lambda pair: -abs(pair[1]))[:5]
    tell(f"base {base:+.4f}  " + "  ".join(f"{name} {value:+.4f}" for name, value in top) + "  …")
    sums = f"base + all {len(values)} values = {total:+.6f}; log-odds of the score = {raw:+.6f}"
    tell(f"{sums}; residual {abs(total - raw):.1e}")
    if abs(total - raw) > 1e-6:
        fail("the SHAP values do not add up to the score")


def flat(value: Any) -> list[float]:
    return [float(entry) for entry in np.asarray(value, dtype=float).ravel()]
