"""The demo itself, as a newcomer runs it: an installation from nothing, the whole road, and the ledger at its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MINTMARK = str(Path(sys.executable).with_name("mintmark"))
STEPS = (
    "registered and approved",
    "submitted on Kafka as signed CloudEvents",
    "judged by the gate",
    "author's own approval is refused",
    "a rejected version does not get",
    "verified again by the model server",
    "is champion",
    "A shadow",
    "joins as challenger",
    "every decision can be asked for",
    "promoted by itself",
    "do not get past it",
    "a subject forgotten",
    "asked through the same gateway",
    "waived by two people",
    "comparative view",
    "Promoted while traffic runs",
    "Rolled back, timed",
    "What served at T",
    "What was production at T",
    "SHAP values that add up",
    "hash-chained, verified",
    "One trace for the whole road",
)


def mintmark(*arguments: str, environment: dict[str, str], timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MINTMARK, *arguments], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An installation of this test's own, on free ports; stopped at the end, whatever happens."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MINTMARK_")}
    cache = {"MINTMARK_CACHE": os.environ["MINTMARK_CACHE"]} if "MINTMARK_CACHE" in os.environ else {}
    found = {**inherited, **cache, "MINTMARK_DATA": str(tmp_path / "data")}
    started = mintmark("up", "--port", "0", environment=found)
    try:
        assert started.returncode == 0, started.stderr
        exports = mintmark("env", environment=found).stdout
        for line in exports.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            found[name] = value.strip("'")
        yield found
    finally:
        mintmark("down", environment=found)


@pytest.mark.timeout(600)
def test_two_real_models_walk_the_whole_road(environment: dict[str, str], tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "census" / "demo.py")],
        env={**environment, "COLUMNS": "250"},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    for step in STEPS:
        assert step in demo.stdout, f"the demo does not show: {step}"
    assert "0 failed" in demo.stdout

    # What a newcomer tries next.
    status = mintmark("status", "--json", environment=environment)
    assert status.returncode == 0 and json.loads(status.stdout)["healthy"]
    verified = mintmark("ledger", "verify", environment=environment)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    tailed = mintmark("events", "tail", "--type", "gate.*", "--from-start", "-n", "3", environment=environment)
    assert tailed.stdout.count("gate.decided.v1") == 3

    # A CloudEvent written by hand is enough.
    content = b"a prompt for nobody"
    event = {
        "type": "asset.submitted.v1",
        "subject": "mm:model/by-hand",
        "data": {
            "submission_id": "0199f3c2-7a10-7001-8a5e-3f1c2d4b5a60",
            "kind": "model",
            "name": "by-hand",
            "artefact": {"digest": "sha256:" + "0" * 64, "format": "lightgbm"},
            "note": content.decode(),
        },
    }
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event))
    refused = mintmark("events", "validate", str(path), environment=environment)
    assert refused.returncode == 6 and "note" in refused.stdout
    published = mintmark("events", "publish", "--unchecked", str(path), environment=environment)
    assert published.returncode == 0, published.stderr
    tailed = mintmark(
        "events", "tail", "--type", "asset.refused.v1", "--from-start", "-n", "1", "--json", environment=environment
    )
    assert json.loads(tailed.stdout)["data"]["urn"] == "mm:model/by-hand"
