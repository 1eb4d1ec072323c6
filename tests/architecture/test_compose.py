"""docker-compose.yml: nothing listens to the world, each process sees its own secrets, everybody says how they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.events import SERVICES

ROOT = Path(__file__).parents[2]
ONCE = {"secrets", "init"}
TOOLS = {"mintmark"}
BACKING = {"kafka", "postgres"}


@pytest.fixture(scope="module")
def containers() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_all_processes_are_there(containers: dict[str, Any]) -> None:
    assert set(containers) == {*SERVICES, "gateway", "shipper", "model-server", "front"} | ONCE | TOOLS | BACKING


def test_every_port_is_on_this_machine_alone(containers: dict[str, Any]) -> None:
    published = [port for one in containers.values() for port in one.get("ports", [])]
    assert len(published) == 5 and all(port.startswith("127.0.0.1:") for port in published)


def test_whoever_stays_says_how_they_are(containers: dict[str, Any]) -> None:
    for name in set(containers) - ONCE - TOOLS:
        assert containers[name]["healthcheck"]["test"][0] == "CMD", name


def test_images_are_pinned_by_tag(containers: dict[str, Any]) -> None:
    for name, one in containers.items():
        tag = re.search(r":-[^:}]+:([^}]+)}$", one["image"])
        assert tag and tag[1] != "latest", name


def test_ours_are_closed_down(containers: dict[str, Any]) -> None:
    for name in set(containers) - BACKING:
        one = containers[name]
        assert one["read_only"] and one["cap_drop"] == ["ALL"], name
        if name == "secrets":
            assert one["network_mode"] == "none"
        else:
            assert "user" not in one and "cap_add" not in one, name


def test_a_process_sees_its_own_secrets(containers: dict[str, Any]) -> None:
    for name in {*SERVICES, "gateway", "shipper", "model-server", "front"}:
        volumes = {volume.split(":")[0]: volume for volume in containers[name].get("volumes", [])}
        own = {"gateway": "router", "shipper": "router", "front": None}.get(name, name)
        assert {one for one in volumes if one.startswith("secrets-")} == (
            {f"secrets-{own}", "secrets-keys"} if own else set()
        ), name
        assert "secrets" not in volumes
        assert all(text.endswith(":ro") for one, text in volumes.items() if one.startswith("secrets-"))
