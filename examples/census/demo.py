"""Walks two real models down the whole road and prints each step with its evidence.

It plays an upstream pipeline and the people around it: it knows Kafka, the published JSON Schemas and the HTTP APIs,
and imports nothing of Mintmark. The addresses and the owner's key come from the environment (`mintmark env`).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx
import numpy as np
import pyarrow.parquet as pq
import uuid_utils
from pipeline import Kafka, Signer, new_trace, sha256
from rich.console import Console
from rich.table import Table
from train import ALL_FEATURES, DATA, candidates

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
FIRST_ROWS, MORE_ROWS = 2_000, 6_000
CONCURRENCY = 12


@dataclass
class World:
    """Everything the story carries along."""

    http: httpx.AsyncClient
    gateway: httpx.AsyncClient
    kafka: Kafka
    keys: dict[str, str]
    traceparent: str
    group: str
    model: str
    dataset: str
    began: float = field(default_factory=time.monotonic)
    step: int = 0

    @property
    def trace_id(self) -> str:
        return self.traceparent.split("-")[1]

    def headers(self, who: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[who]}", "traceparent": self.traceparent}

    async def call(self, who: str, method: str, path: str, expect: int | None = None, **more: Any) -> Any:
        """One HTTP call as one of the people; the JSON of the answer."""
        headers = {**self.headers(who), **more.pop("headers", {})}
        answer = await self.http.request(method, path, headers=headers, **more)
        if expect is not None and answer.status_code != expect:
            fail(f"{method} {path} answered {answer.status_code}, not {expect}: {answer.text[:500]}")
        if expect is None and answer.is_error:
            fail(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def say(self, title: str) -> None:
        """A new step."""
        self.step += 1
        console.print(f"\n[bold]{self.step:2}. {title}[/bold]  [dim]{time.monotonic() - self.began:.1f} s[/dim]")


def fail(why: str) -> NoReturn:
    """End the demo: the road is broken here."""
    console.print(f"[red bold]the demo fails here:[/] {why}", markup=True)
    sys.exit(1)


def tell(text: str) -> None:
    console.print(f"    {text}", markup=True)


def interval(measure: dict[str, Any]) -> str:
    return f"{measure['value']:.4f} [{measure['low']:.4f}, {measure['high']:.4f}]"


def make_key(principal: str, *roles: str) -> str:
    """An API key by the command line, as an administrator makes one."""
    mintmark = shutil.which("mintmark") or str(Path(sys.executable).with_name("mintmark"))
    command = [mintmark, "keys", "create", principal, *(part for role in roles for part in ("--role", role))]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        fail(f"{' '.join(command)}: {made.stderr.strip()}")
    return str(json.loads(made.stdout)["api_key"])


async def dataset(world: World) -> dict[str, Any]:
    """Registered by an event on Kafka, approved by a second person."""
    world.say("The dataset: US census rows of 2015, registered and approved")
    files = []
    for split, name in (("train", "train.parquet"), ("golden", "test.parquet")):
        content = (DATA / name).read_bytes()
        digest = sha256(content)
        await world.call("pipeline", "PUT", f"/registry/v1/artefacts/{digest}", content=content)
        rows = pq.read_metadata(DATA / name).num_rows
        files.append({"path": name, "digest": digest, "size": len(content), "rows": rows, "split": split})
        tell(f"uploaded {name}: {rows:,} rows, {digest[:19]}…")
    manifest = {
        "files": files,
        "label": "employed",
        "sensitive": ["SEX"],
        "source": "US Census Bureau, American Community Survey public use microdata 2015, Massachusetts",
        "licence": "public domain (work of the US government)",
        "sensitivity": "public",
    }
    registered = await submit(world, {"kind": "dataset", "name": world.dataset, "manifest": manifest})
    asset = registered["asset"]
    tell(f"registered as [cyan]{asset['urn']}@{asset['version']}[/] {asset['digest'][:19]}…")
    path = f"/policy/v1/datasets/{world.dataset}/versions/{asset['version']}/approval"
    body = {"decision": "approved", "reason": "Public data, hashes checked, splits disjoint by construction."}
    await until_known(lambda: world.call("bea", "GET", "/policy/v1/datasets"), asset["urn"])
    approved = world.kafka.expect("dataset.approved", lambda data: data["asset"]["urn"] == asset["urn"])
    await world.call("bea", "POST", path, json=body)
    tell(f"approved by {(await approved)['approver']['id']}")
    return dict(asset)


async def submit(world: World, data: dict[str, Any]) -> dict[str, Any]:
    """`asset.submitted` on Kafka, signed; the answer is `asset.registered`, or the demo ends."""
    submission = str(uuid_utils.uuid7())
    urn = f"mm:{data['kind']}/{data['name']}"
    answer = world.kafka.expect("asset.registered", lambda found: found["submission_id"] == submission)
    refused = world.kafka.expect("asset.refused", lambda found: found["submission_id"] == submission)
    await world.kafka.publish("asset.submitted.v1", urn, {"submission_id": submission, **data}, world.traceparent)
    done, _ = await asyncio.wait({answer, refused}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    if refused in done:
        fail(f"the submission was refused: {refused.result()}")
    if answer not in done:
        fail("no answer to asset.submitted within 60 s")
    refused.cancel()
    return dict(answer.result())


async def until_known(look: Callable[[], Awaitable[Any]], what: str) -> None:
    """Wait until a service's read model has heard of something."""
    for _ in range(200):
        if what in json.dumps(await look()):
            return
        await asyncio.sleep(0.05)
    fail(f"{what} did not become known within 10 s")


async def train_and_submit(world: World, golden: dict[str, Any]) -> list[dict[str, Any]]:
    """Three candidates become three versions of one model."""
    world.say("Three candidates trained with LightGBM, submitted on Kafka as signed CloudEvents")
    golden_set = {"urn": golden["urn"], "version": golden["version"], "digest": golden["digest"]}
    versions = []
    for candidate in await asyncio.to_thread(candidates):
        content = candidate.model.encode()
        await world.call("pipeline", "PUT", f"/registry/v1/artefacts/{candidate.digest}", content=content)
        registered = await submit(
            world,
            {
                "kind": "model",
                "name": world.model,
                "artefact": {"digest": candidate.digest, "format": "lightgbm", "size": len(content)},
                "task": "classification",
                "signature": {
                    "inputs": [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in candidate.features],
                    "outputs": [{"name": "probability", "datatype": "FP64", "shape": [-1]}],
                },
                "golden_set": golden_set,
                "training": {"dataset": golden_set, "parameters": {"features": len(candidate.features)}},
                "metrics": {"roc_auc": candidate.auc},
                "tags": {"candidate": candidate.name},
                "licence": "Apache-2.0",
                "description": f"Who is employed, from {len(candidate.features)} census features ({candidate.name}).",
                "author": "pipeline:census",
            },
        )
        asset = registered["asset"]
        versions.append(dict(asset))
        author = registered["author"]
        proof = "proven by its signature" if author["proven"] else "unverified"
        tell(
            f"{candidate.name:20} trained in {candidate.seconds:.1f} s → [cyan]{asset['urn']}@{asset['version']}[/] "
            f"{asset['digest'][:19]}…, author {author['id']} ({proof})"
        )
    return versions


async def evaluated(world: World, versions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measured on the golden set, judged by the gate."""
    world.say("Evaluated on the golden set, judged by the gate: on intervals, not on points")
    gates = []
    for version in versions:
        mine = matching(version)
        measured = await world.kafka.expect("eval.completed", mine)
        gate = await world.kafka.expect("gate.decided", mine)
        gates.append(gate)
        measures = measured["measures"]
        colour = {"pass": "green", "review": "yellow", "reject": "red"}[gate["verdict"]]
        tell(f"[cyan]{version['urn']}@{version['version']}[/] → [{colour}]{gate['verdict']}[/]: {gate['reason']}")
        shown = ("accuracy_score", "roc_auc", "f1_score", "log_loss")
        tell("  " + "  ".join(f"{name} {interval(measures[name])}" for name in shown if name in measures))
        fairness = sorted(name for name in measures if name.startswith("fairness") and "difference" in name)
        tell("  " + "  ".join(f"{name} {interval(measures[name])}" for name in fairness))
        latency = {name: measures[name] for name in measures if name.startswith("latency_ms.p")}
        tell("  " + "  ".join(f"{name} {value['value']:.3f} ms" for name, value in latency.items()))
        tell(f"  {measured['rows']:,} rows, {measured['errors']} errors, report {measured['report'][:19]}…")
    verdicts = [gate["verdict"] for gate in gates]
    if verdicts[2] != "reject" or "reject" in verdicts[:2]:
        fail(f"expected the shuffled candidate alone to be rejected, found {verdicts}")
    return gates


def matching(version: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    return lambda data: data["asset"]["urn"] == version["urn"] and data["asset"]["version"] == version["version"]


async def approved(world: World, versions: list[dict[str, Any]]) -> None:
    """Four eyes: the author's own approval is refused, a second person's is signed."""
    world.say("Approved by a second person; the author's own approval is refused")
    for version in versions:
        body = {"asset": version, "decision": "approved", "reason": "Figures, data and fairness reviewed."}
        if version is versions[0]:
            refusal = await world.http.post("/policy/v1/approvals", json=body, headers=world.headers("author"))
            if refusal.status_code < 400:
                fail("the author could approve their own model")
            problem = refusal.json()
            tell(f"[red]{refusal.status_code} {problem['code']}[/]: {problem['detail']}")
        heard = world.kafka.expect("approval.decided", matching(version))
        await world.call("bea", "POST", "/policy/v1/approvals", json=body)
        decision = await heard
        keyid = decision["statement"]["signatures"][0]["keyid"]
        tell(
            f"[cyan]{version['urn']}@{version['version']}[/] [green]{decision['decision']}[/] by "
            f"{decision['approver']['id']}; binds to {decision['binding'][:19]}…, DSSE signature by {keyid}"
        )


async def deployed(world: World, versions: list[dict[str, Any]], rejected: dict[str, Any]) -> None:
    """By a signed event; what has no approval goes nowhere."""
    world.say("Deployed: a signed bundle, verified again by the model server before it loads")
    release_manager = Signer(world.keys["bea"])
    for version in [*versions, rejected]:
        request = str(uuid_utils.uuid7())
        done = world.kafka.expect("deploy.completed", lambda data, request=request: data["request_id"] == request)
        failed = world.kafka.expect("deploy.failed", lambda data, request=request: data["request_id"] == request)
        data = {"request_id": request, "asset": version, "target": "local", "requested_by": "user:bea"}
        await world.kafka.publish("deploy.requested.v1", version["urn"], data, world.traceparent, release_manager)
        ended, _ = await asyncio.wait({done, failed}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        if not ended:
            fail(f"no answer to deploy.requested of {version} within 60 s")
        if version is rejected:
            if failed not in ended:
                fail("a version without an approval was deployed")
            tell(f"version {version['version']}: [red]{failed.result()['code']}[/]: {failed.result()['reason']}")
        elif done in ended:
            found = done.result()
            tell(f"version {version['version']} answers at {found['endpoint']}, bundle {found['bundle'][:19]}…")
        else:
            fail(f"deploying {version} failed: {failed.result()}")
        for waiting in (done, failed):
            waiting.cancel()


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


async def drive(world: World, rows: Any, start: int, stop: int, stopping: asyncio.Event | None = None) -> Traffic:
    """Send rows through the gateway; ends early when `stopping` is set."""
    traffic = Traffic()
    requests = iter(requests_of(rows, start, stop))

    async def worker() -> None:
        for unit, label, body in requests:
            if stopping is not None and stopping.is_set():
                return
            headers = {"authorization": f"Bearer {world.keys['app']}", "x-mintmark-unit": unit}
            try:
                answer = await world.gateway.post(f"/v2/models/{world.group}/infer", json=body, headers=headers)
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


async def etag_of(world: World) -> str:
    answer = await world.http.get(f"/router/v1/groups/{world.group}", headers=world.headers("bea"))
    return str(answer.headers["etag"])


def check(traffic: Traffic, what: str) -> None:
    if traffic.failures:
        fail(f"{what}: {len(traffic.failures)} requests failed, the first: {traffic.failures[0]}")


async def live(world: World, versions: list[dict[str, Any]], rows: Any) -> Traffic:
    """The group, the champion, the challenger's ramp; every request a row."""
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

    world.say("The 16-feature version joins as challenger: 10 %, then 50 %; nobody who saw it flips back")
    everything = Traffic(list(first.answers))
    for percent, start, stop in ((10, 2_000, 5_000), (50, 5_000, 8_000)):
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


def version_of(header: str) -> str:
    """`x-mintmark-version` is `urn@number`, or the number alone."""
    return header.rpartition("@")[2]


def now() -> str:
    return datetime.now(UTC).isoformat()


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


async def run() -> None:
    needed = ("MINTMARK_URL", "MINTMARK_GATEWAY_URL", "MINTMARK_KAFKA_BOOTSTRAP", "MINTMARK_API_KEY")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        fail(f'{", ".join(missing)} not set: eval "$(mintmark env)" first')
    url = os.environ["MINTMARK_URL"]
    keys = {
        "owner": os.environ["MINTMARK_API_KEY"],
        "pipeline": make_key("pipeline:census", "publisher"),
        "author": make_key("pipeline:census", "publisher", "approver"),
        "bea": make_key("user:bea", "release-manager"),
        "app": make_key("app:benefits", "caller"),
        "auditor": make_key("user:cyd", "auditor"),
    }
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
        golden = await dataset(world)
        versions = await train_and_submit(world, golden)
        await evaluated(world, versions)
        await approved(world, versions[:2])
        await deployed(world, versions[:2], versions[2])
        rows = await asyncio.to_thread(pq.read_table, DATA / "live_2016.parquet")
        traffic = await live(world, versions[:2], rows)
        await compared(world)
        moments = await promoted(world, versions[:2], rows)
        await looked_back(world, moments)
        await one_row(world, traffic)
        await ledger(world)
        epilogue(world)


async def first_free(http: httpx.AsyncClient, headers: dict[str, str]) -> int:
    """Which run this is: the first whose names are not taken yet."""
    for number in range(1, 1000):
        answer = await http.get(f"/registry/v1/assets/dataset/{named('census-2015', number)}", headers=headers)
        if answer.status_code == 404:
            return number
        if answer.is_error:
            fail(f"the registry answered {answer.status_code}: {answer.text[:300]}")
    return fail("a thousand runs are enough")


def named(name: str, number: int) -> str:
    """The demo may run again: each run takes names of its own."""
    return name if number == 1 else f"{name}-{number}"


if __name__ == "__main__":
    asyncio.run(run())
