"""What `helm test` runs: a dataset goes to the registry by HTTP, and the ledger hears of it by Kafka.

Running it again finds the same version again: the content is always the same, and content has one digest.
"""

import hashlib
import json
import os
import time
import uuid

import httpx

HOSTS = os.environ["HOSTS"]
PORTS = {"gateway": 8710, "model-server": 8720}
SERVICES = ("registry", "prompts", "evaluator", "deployer", "router", "policy")
WITHIN_S = 60.0
CONTENT = b"age,employed\n17,0\n42,1\n"


def url(process: str, path: str) -> str:
    return f"http://{HOSTS}-{process}:{PORTS.get(process, 8700)}{path}"


def key() -> str:
    """The key itself, or the file of its owner that holds it."""
    given = os.environ["API_KEY"].strip()
    return str(json.loads(given)["api_key"]) if given.startswith("{") else given


def wait(what: str, look) -> object:
    """The first answer of `look` that is not None."""
    deadline = time.monotonic() + WITHIN_S
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"FAILED: {what}: not within {WITHIN_S:.0f} s")
        time.sleep(0.2)
    print(f"ok: {what}", flush=True)
    return found


def main() -> None:
    http = httpx.Client(headers={"authorization": f"Bearer {key()}"}, timeout=10, trust_env=False)

    def is_ready(process: str) -> bool | None:
        path = "/v2/health/ready" if process == "model-server" else "/readyz"
        try:
            return http.get(url(process, path)).is_success or None
        except httpx.TransportError:
            return None

    for process in (*SERVICES, *PORTS):
        wait(f"{process} is ready", lambda process=process: is_ready(process))

    digest = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    http.put(url("registry", f"/registry/v1/artefacts/{digest}"), content=CONTENT).raise_for_status()
    print(f"ok: uploaded {digest}")
    submission = str(uuid.uuid4())
    file = {"path": "test.csv", "digest": digest, "size": len(CONTENT), "rows": 2, "split": "golden", "format": "csv"}
    body = {
        "submission_id": submission,
        "kind": "dataset",
        "name": "helm-test",
        "manifest": {"files": [file], "label": "employed", "source": "helm test", "licence": "CC0-1.0"},
        "tags": {"purpose": "helm-test"},
    }
    trace = uuid.uuid4().hex
    headers = {"idempotency-key": submission, "traceparent": f"00-{trace}-{trace[:16]}-01"}
    answer = http.post(url("registry", "/registry/v1/submissions"), json=body, headers=headers)
    if answer.is_error:
        raise SystemExit(f"FAILED: the registry answered {answer.status_code}: {answer.text}")

    def decided() -> dict | None:
        found = http.get(url("registry", f"/registry/v1/submissions/{submission}")).raise_for_status().json()
        return found if found["state"] in ("registered", "refused") else None

    found = wait("the registry has decided", decided)
    if found["state"] != "registered":
        raise SystemExit(f"FAILED: refused, {found['code']}: {found['reason']}")
    print(f"ok: registered {found['urn']}@{found['version']}")

    def heard() -> bool | None:
        answer = http.get(url("policy", "/policy/v1/ledger"), params={"trace": trace}).raise_for_status()
        return "asset.registered" in answer.text or None

    wait(f"the ledger has heard of it by Kafka, trace {trace}", heard)


main()
