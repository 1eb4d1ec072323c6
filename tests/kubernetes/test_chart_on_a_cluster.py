"""The chart on a real cluster: every pod becomes ready, an asset is registered by a Service's address, nothing is lost.

`make test-kubernetes` with KUBECONFIG set. The images must be there already, or be pulled from where they are:
MINTMARK_TEST_IMAGE (mintmark:test), KAFKA_IMAGE and POSTGRES_IMAGE (those of docker-compose.yml), name:tag each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uuid_utils
import yaml

from deploy.secrets import ensure
from shared.events import SERVICES

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "mintmark"
HELM = Path(sys.executable).with_name("helm")
IMAGE = os.environ.get("MINTMARK_TEST_IMAGE", "mintmark:test")
RELEASE = "mintmark"
PROCESSES = (*SERVICES, "gateway", "model-server")
# Small enough for eight processes on two cores; `reject`, the chart's own default, stays.
VALUES: dict[str, Any] = {
    "image": {"repository": IMAGE.rpartition(":")[0], "tag": IMAGE.rpartition(":")[2]},
    "kafka": {"bootstrap": "kafka:9092", "replication": 1, "partitions": 3},
    "database": {"admin": {"existingSecret": "mintmark-admin"}},
    "artefacts": {"volume": {"enabled": True, "size": "1Gi", "accessMode": "ReadWriteOnce"}},
    "processes": {
        name: {"replicas": 1, "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}} for name in PROCESSES
    },
    "setup": {"resources": {"requests": {"cpu": "20m"}}},
}

# Run in a pod of the cluster: Kafka is reached by nobody outside of it.
PUBLISH = """
import asyncio, sys, uuid
from aiokafka import AIOKafkaProducer

async def main():
    producer = AIOKafkaProducer(bootstrap_servers="kafka:9092")
    await producer.start()
    attributes = {
        "ce_specversion": "1.0", "ce_id": str(uuid.uuid4()), "ce_source": "test", "ce_type": "asset.submitted.v1",
        "ce_subject": "mm:dataset/unproven", "ce_time": "2026-01-01T00:00:00Z", "content-type": "application/json",
    }
    headers = [(name, value.encode()) for name, value in attributes.items()]
    await producer.send_and_wait("asset.submitted", sys.argv[1].encode(), key=b"mm:dataset/unproven", headers=headers)
    await producer.stop()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Cluster:
    """A namespace of this test's own, with the chart installed in it."""

    namespace: str
    folder: Path

    def run(self, *command: str | Path, check: bool = True, **more: Any) -> str:
        """kubectl or helm in the namespace; what it prints. Fails with its error."""
        program, *rest = map(str, command)
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [program, "--namespace", self.namespace, *rest], capture_output=True, text=True, check=False, **more
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}\n{self.situation()}")
        return done.stdout

    def situation(self) -> str:
        """Pods, and the last words of those that are not well: what one wants to know when something fails."""
        pods = json.loads(self.run("kubectl", "get", "pods", "-o", "json", check=False) or '{"items": []}')["items"]
        told = []
        for pod in pods:
            statuses = pod["status"].get("containerStatuses", [])
            told.append(f"{pod['metadata']['name']}: {pod['status']['phase']} {[s['state'] for s in statuses]}")
            if not all(status["ready"] for status in statuses):
                told.append(self.run("kubectl", "logs", pod["metadata"]["name"], "--tail=15", check=False))
        return "\n".join(told)

    @contextmanager
    def reaching(self, service: str, port: int) -> Iterator[str]:
        """The address of a Service of the release, on this machine."""
        process = subprocess.Popen(
            ["kubectl", "-n", self.namespace, "port-forward", f"service/{RELEASE}-{service}", f":{port}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, f"no port-forward to {service}: {line}"
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if "KUBECONFIG" not in os.environ or shutil.which("kubectl") is None:
        pytest.fail("this test needs a cluster: set KUBECONFIG and put kubectl on the PATH (docs/how-to/kubernetes.md)")
    made = Cluster(f"mintmark-test-{secrets.token_hex(3)}", tmp_path_factory.mktemp("cluster"))
    subprocess.run(["kubectl", "create", "namespace", made.namespace], check=True, capture_output=True)
    try:
        # The namespace itself refuses any pod of the chart that is not closed down; the backing is not the chart's.
        label = ["pod-security.kubernetes.io/warn=restricted", "pod-security.kubernetes.io/enforce=baseline"]
        subprocess.run(["kubectl", "label", "namespace", made.namespace, *label], check=True, capture_output=True)
        make_secrets(made)
        start_backing(made)
        (made.folder / "values.yaml").write_text(yaml.safe_dump(VALUES))
        made.run(HELM, "install", RELEASE, CHART, "--values", made.folder / "values.yaml", "--wait", "--timeout", "10m")
        yield made
    finally:
        if os.environ.get("MINTMARK_TEST_KEEP") != "1":
            subprocess.run(
                ["kubectl", "delete", "namespace", made.namespace, "--timeout=180s"], check=False, capture_output=True
            )


def make_secrets(cluster: Cluster) -> None:
    """As docs/how-to/kubernetes.md says: each folder becomes one Secret."""
    root = cluster.folder / "secrets"
    ensure(root, "postgres:5432/mintmark")
    for folder in root.glob("[a-z]*"):
        cluster.run("kubectl", "create", "secret", "generic", f"mintmark-{folder.name}", f"--from-file={folder}")


def start_backing(cluster: Cluster) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    text = (Path(__file__).parent / "backing.yaml").read_text()
    for name in ("kafka", "postgres"):
        variable = f"{name.upper()}_IMAGE"
        default = re.search(r":-(.*)}", compose[name]["image"])
        assert default is not None
        text = text.replace(f"@{variable}@", os.environ.get(variable, default[1]))
    cluster.run("kubectl", "apply", "-f", "-", input=text)
    for name in ("kafka", "postgres"):
        cluster.run("kubectl", "rollout", "status", f"deployment/{name}", "--timeout=180s")


def owner(cluster: Cluster) -> dict[str, str]:
    found: dict[str, str] = json.loads((cluster.folder / "secrets" / "owner" / "owner.json").read_text())
    return found


def within(seconds: float, look: Callable[[], Any]) -> Any:
    """The first answer of `look` that is not None."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.3)
    return found


def register(http: httpx.Client, name: str, content: bytes) -> dict[str, Any]:
    """A dataset by HTTP; the registry's decision."""
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    http.put(f"/registry/v1/artefacts/{digest}", content=content).raise_for_status()
    submission = str(uuid_utils.uuid7())
    file = {"path": "a.csv", "digest": digest, "size": len(content), "rows": 1, "split": "golden", "format": "csv"}
    body = {
        "submission_id": submission, "kind": "dataset", "name": name,
        "manifest": {"files": [file], "source": "a test", "licence": "CC0-1.0"},
    }  # fmt: skip
    answer = http.post("/registry/v1/submissions", json=body, headers={"idempotency-key": submission})
    assert answer.status_code == 202, answer.text
    return decision(http, submission)


def decision(http: httpx.Client, submission: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        answer = http.get(f"/registry/v1/submissions/{submission}")
        found: dict[str, Any] = answer.json()
        return found if answer.is_success and found["state"] in ("registered", "refused") else None

    decided: dict[str, Any] = within(60, look)
    return decided


@pytest.fixture
def registry(cluster: Cluster) -> Iterator[httpx.Client]:
    with (
        cluster.reaching("registry", 8700) as url,
        httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {owner(cluster)['api_key']}"}, timeout=30
        ) as http,
    ):
        yield http


def test_every_pod_is_ready_and_closed_down(cluster: Cluster) -> None:
    pods = json.loads(
        cluster.run("kubectl", "get", "pods", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "json")
    )
    running = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod
        for pod in pods["items"]
        if pod["status"]["phase"] == "Running"
    }
    assert set(running) == set(PROCESSES)
    for name, pod in running.items():
        (status,) = pod["status"]["containerStatuses"]
        beside = pod["status"].get("initContainerStatuses", [])  # the gateway's shipper
        assert all(one["ready"] for one in (status, *beside)), name
        print(f"{name}: ready, {status['restartCount']} restarts")
    answer = cluster.run(
        "kubectl", "exec", f"deployment/{RELEASE}-registry", "--",
        "sh", "-c", "id -u; touch /etc/x 2>&1; grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status; true",
    )  # fmt: skip
    assert answer.startswith("10001\n") and "Read-only file system" in answer
    assert re.search(r"CapEff:\s+0+\n", answer) and re.search(r"NoNewPrivs:\s+1", answer)


def test_the_chart_fits_a_namespace_that_enforces_the_restricted_standard(cluster: Cluster) -> None:
    """Asked of the API server itself, without starting anything."""
    rendered = cluster.run(HELM, "get", "manifest", RELEASE)
    label = "pod-security.kubernetes.io/warn=restricted"
    assert label in cluster.run("kubectl", "get", "namespace", cluster.namespace, "-o", "yaml").replace(": ", "=")
    done = subprocess.run(
        ["kubectl", "-n", cluster.namespace, "apply", "--dry-run=server", "-f", "-"],
        input=rendered, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "PodSecurity" not in done.stderr, done.stderr


def test_an_asset_is_registered_through_the_address_of_a_service(registry: httpx.Client) -> None:
    found = register(registry, f"cluster-{secrets.token_hex(3)}", secrets.token_hex(8).encode() + b"\n")
    assert found["state"] == "registered", found
    assert found["author"] == {"id": "user:owner", "proven": True} or found["author"]["proven"] is True
    version = registry.get(f"/registry/v1/assets/{found['urn'].removeprefix('mm:')}/versions/{found['version']}")
    assert version.status_code == 200 and version.json()["digest"].startswith("sha256:")


def test_helm_test_passes(cluster: Cluster) -> None:
    printed = cluster.run(HELM, "test", RELEASE, "--logs", "--timeout", "5m")
    print(printed)
    assert "the ledger has heard of it by Kafka" in printed


def test_an_event_whose_author_nobody_proves_is_refused(cluster: Cluster, registry: httpx.Client) -> None:
    """Whoever can write to Kafka may not name any author: the chart's default."""
    submission = str(uuid_utils.uuid7())
    content = secrets.token_hex(8).encode()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    registry.put(f"/registry/v1/artefacts/{digest}", content=content).raise_for_status()
    file = {"path": "a.csv", "digest": digest, "size": len(content), "rows": 1, "split": "golden", "format": "csv"}
    data = {
        "submission_id": submission, "kind": "dataset", "name": "unproven", "author": "user:owner",
        "manifest": {"files": [file], "source": "a test", "licence": "CC0-1.0"},
    }  # fmt: skip
    cluster.run("kubectl", "exec", f"deployment/{RELEASE}-registry", "--", "python", "-c", PUBLISH, json.dumps(data))
    refused = decision(registry, submission)
    assert (refused["state"], refused["code"]) == ("refused", "author-unproven"), refused


def test_an_upgrade_loses_nothing(cluster: Cluster, registry: httpx.Client) -> None:
    before = register(registry, "kept", b"kept\n")
    assert before["state"] == "registered"
    cluster.run(
        HELM, "upgrade", RELEASE, CHART, "--values", cluster.folder / "values.yaml",
        "--set", "podAnnotations.upgraded=yes", "--wait", "--timeout", "10m",
    )  # fmt: skip
    with cluster.reaching("registry", 8700) as url:
        answer = httpx.get(
            f"{url}/registry/v1/assets/dataset/kept/versions/{before['version']}", headers=registry.headers, timeout=30
        )
        assert answer.status_code == 200, answer.text
