"""The whole platform as `mintmark up` runs it: one command, all of it there, and all data there after kill -9."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from mintmark.cli.main import app
from typer.testing import CliRunner

from deploy.local.credentials import SERVICES
from deploy.local.errors import LocalError
from deploy.local.installation import Installation
from services.router.gateway.grpc_inference.messages import ServerReadyResponse

ROWS = b"AGEP,employed\n44,1\n17,0\n"
DIGEST = f"sha256:{hashlib.sha256(ROWS).hexdigest()}"
TOGETHER = {"postgres", "kafka", "services", "gateway", "shipper", "model-server"}
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("platform") / "data")
    made.up(front=0)
    yield made
    made.down()


def client_of(installation: Installation) -> httpx.Client:
    """As the owner, with what `mintmark env` prints."""
    exports = installation.exports()
    headers = {"authorization": f"Bearer {exports['MINTMARK_API_KEY']}"}
    return httpx.Client(base_url=exports["MINTMARK_URL"], headers=headers, timeout=10)


def pids(installation: Installation) -> dict[str, int]:
    """Those that live. That they are ready is what `up` waits for; asked again, a busy one may be late."""
    return {one.name: one.pid for one in installation.status() if one.state != "dead"}


def eventually(what: str, look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {what}"
        time.sleep(0.1)
    return found


def submit_dataset(client: httpx.Client, name: str) -> None:
    file = {"path": "rows.csv", "digest": DIGEST, "size": len(ROWS), "rows": 2, "split": "golden", "format": "csv"}
    manifest = {
        "files": [file],
        "label": "employed",
        "source": "this test",
        "licence": "CC0-1.0",
        "sensitivity": "public",
    }
    body = {"submission_id": str(uuid4()), "kind": "dataset", "name": name, "manifest": manifest}
    client.put(f"/registry/v1/artefacts/{DIGEST}", content=ROWS).raise_for_status()
    answer = client.post("/registry/v1/submissions", json=body, headers={"idempotency-key": str(uuid4())})
    assert answer.status_code == 202, answer.text


def ledger_of(client: httpx.Client, urn: str) -> list[str]:
    answer = client.get("/policy/v1/ledger", params={"key": urn})
    return [entry["type"] for entry in answer.raise_for_status().json()["items"]]


def test_one_command_brings_up_everything(installation: Installation) -> None:
    assert set(pids(installation)) == TOGETHER
    exports = installation.exports()
    for address in (exports["MINTMARK_URL"], exports["MINTMARK_GATEWAY_URL"]):
        assert httpx.get(f"{address}/readyz").status_code == 200
    with grpc.insecure_channel(exports["MINTMARK_GATEWAY_GRPC_URL"]) as channel:
        answer = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=10)
    assert ServerReadyResponse.FromString(answer).ready


def test_a_second_up_changes_nothing(installation: Installation) -> None:
    before = pids(installation)
    installation.up()
    assert pids(installation) == before


def test_the_owners_key_opens_and_nothing_else_does(installation: Installation) -> None:
    with client_of(installation) as client:
        assert client.get("/registry/v1/search").status_code == 200
        assert client.get("/registry/v1/search", headers={"authorization": "Bearer mmk_x_y"}).status_code == 401
        assert httpx.get(client.base_url.join("/registry/v1/search")).status_code == 401


def test_after_kill_9_of_everything_all_data_are_there_and_the_ledger_verifies(installation: Installation) -> None:
    urn = "mm:dataset/kept"
    with client_of(installation) as client:
        submit_dataset(client, "kept")
        eventually("registered and in the ledger", lambda: "dataset.registered.v1" in ledger_of(client, urn))
        entries = client.get("/policy/v1/ledger/verify").json()["entries"]
    before = pids(installation)

    installation.table.kill_all()
    assert pids(installation) == {}
    installation.up()

    assert not set(before.values()) & set(pids(installation).values())
    with client_of(installation) as client:
        assert client.get("/registry/v1/assets/dataset/kept").json()["versions"] == 1
        assert client.get(f"/registry/v1/artefacts/{DIGEST}").content == ROWS
        ledger = client.get("/policy/v1/ledger/verify").json()
        assert (ledger["holds"], ledger["entries"] >= entries > 0) == (True, True)
        submit_dataset(client, "after")
        eventually("work goes on", lambda: "dataset.registered.v1" in ledger_of(client, "mm:dataset/after"))


def test_what_died_is_shown_and_started_again_alone(installation: Installation) -> None:
    installation.up()
    before = pids(installation)
    installation.table.kill("gateway")
    shown = CliRunner().invoke(app, ["status", "--data", str(installation.folder.root)])
    assert shown.exit_code == 1
    assert "dead" in shown.stdout

    installation.up()

    after = pids(installation)
    assert after.pop("gateway") != before.pop("gateway")
    assert after == before


def test_another_layout_while_it_runs_is_refused(installation: Installation) -> None:
    installation.up()
    with pytest.raises(LocalError, match="run `mintmark down` first"):
        installation.up(separate=True)


def test_no_process_knows_more_than_it_needs(installation: Installation) -> None:
    """The admin's password is in no process, and the model server has neither a database nor an API key."""
    import psutil

    installation.up()
    for name, pid in pids(installation).items():
        environment = psutil.Process(pid).environ()
        assert "MINTMARK_ADMIN_DSN" not in environment
        if name == "model-server":
            assert not [variable for variable in environment if variable.endswith("_DSN")]
        if name == "gateway":
            assert [variable for variable in environment if variable.endswith("_DSN")] == ["MINTMARK_ROUTER_DSN"]


def test_one_process_a_service_behind_the_same_address(tmp_path: Path) -> None:
    separate = Installation(tmp_path / "data")
    separate.up(front=0, separate=True)
    try:
        assert set(pids(separate)) == {"postgres", "kafka", "gateway", "shipper", "model-server", "front", *SERVICES}
        with client_of(separate) as client:
            submit_dataset(client, "apart")
            eventually(
                "registered and in the ledger", lambda: "dataset.registered.v1" in ledger_of(client, "mm:dataset/apart")
            )
    finally:
        outcomes = separate.down()
    assert set(outcomes.values()) == {"stopped"}
