"""The first chapter: a dataset and three candidates, from submission to a deployment."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow.parquet as pq
import uuid_utils
from pipeline import Signer, sha256
from story import World, fail, interval, matching, submit, tell, until_known
from train import DATA, candidates

Answer = asyncio.Task[tuple[str, dict[str, Any]]]
"""Of the deployer: the type of its event, and its data."""


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


async def deployed(world: World, versions: list[dict[str, Any]], rejected: dict[str, Any]) -> Answer:
    """By a signed event; returns what comes of the version that nobody approved, which takes some seconds."""
    world.say("Deployed: a signed bundle, verified again by the model server before it loads")
    for version in versions:
        kind, found = await deploying(world, version)
        if kind != "deploy.completed":
            fail(f"deploying {version} failed: {found}")
        tell(f"version {version['version']} answers at {found['endpoint']}, bundle {found['bundle'][:19]}…")
    tell(f"version {rejected['version']}: asked for as well; an approval may still come, so it is not refused at once")
    return asyncio.create_task(deploying(world, rejected))


async def deploying(world: World, version: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """`deploy.requested` on Kafka, signed by the release manager; the type and data of the answer to it."""
    request = str(uuid_utils.uuid7())
    answers = {
        world.kafka.expect(kind, lambda data: data["request_id"] == request): kind
        for kind in ("deploy.completed", "deploy.failed")
    }
    data = {"request_id": request, "asset": version, "target": "local", "requested_by": "user:bea"}
    signer = Signer(world.keys["bea"])
    await world.kafka.publish("deploy.requested.v1", version["urn"], data, world.traceparent, signer)
    ended, others = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    for other in others:
        other.cancel()
    if not ended:
        fail(f"no answer to deploy.requested of {version} within 60 s")
    answer = ended.pop()
    return answers[answer], answer.result()


async def refused(world: World, rejected: dict[str, Any], answer: Answer) -> None:
    """What has no approval goes nowhere."""
    world.say("What nobody approved is not deployed")
    kind, found = await answer
    if kind != "deploy.failed":
        fail("a version without an approval was deployed")
    tell(f"version {rejected['version']}: [red]{found['code']}[/]: {found['reason']}")
