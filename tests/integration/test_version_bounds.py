"""A version number beyond every table's integer is answered like any other invalid request, and buries nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest

from shared.bus import dead_letters
from shared.events.base import LAST_VERSION, Event
from shared.events.deployer import DeployFailed
from shared.events.registry import AssetRefused
from shared.events.upstream import AssetSubmitted, DeployRequested
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
REQUESTS: tuple[tuple[str, type[Event], Callable[[Any], Any], type[Event]], ...] = (
    ("registry", AssetSubmitted, lambda data: data["golden_set"], AssetRefused),
    ("registry", AssetSubmitted, lambda data: data["training"]["dataset"], AssetRefused),
    ("registry", AssetSubmitted, lambda data: data["prompts"][0], AssetRefused),
    ("deployer", DeployRequested, lambda data: data["asset"], DeployFailed),
)


async def test_a_version_beyond_the_last_is_refused_and_not_buried(installation: Installation) -> None:
    await installation.start("registry", "deployer")
    for number, (_, asked, found, _) in enumerate(REQUESTS):
        data = with_references(asked)
        found(data)["version"] = LAST_VERSION + 1
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"beyond-{number}".encode()),
            ("ce_source", b"test"),
            ("ce_type", asked.type().encode()),
        ]
        await installation.send_raw(asked.topic.name, json.dumps(data).encode(), headers, b"mm:model/credit-pd")
    for number, (_, _, _, answer) in enumerate(REQUESTS):
        refused = await installation.wait_for(answer, lambda event, number=number: event.event_id == f"beyond-{number}")
        assert refused.code == "invalid" and "version" in refused.reason and "2147483647" in refused.reason
    for service in {service for service, *_ in REQUESTS}:
        assert await dead_letters.listed(installation.kafka, service) == []


def test_the_last_version_itself_is_a_version() -> None:
    data = with_references(AssetSubmitted)
    data["golden_set"]["version"] = LAST_VERSION
    assert AssetSubmitted.model_validate(data).golden_set is not None


def with_references(event: type[Event]) -> Any:
    """The committed example's data, with every kind of reference to another version that an asset may have."""
    data = json.loads((files("shared.events") / "examples" / f"{event.type()}.json").read_text())["data"]
    if event is AssetSubmitted:
        dataset = {"urn": "mm:dataset/census", "version": 1}
        prompt = {"urn": "mm:prompt/hello", "version": 1, "digest": "sha256:" + "0" * 64}
        data |= {"golden_set": dataset, "training": {"dataset": dict(dataset)}, "prompts": [prompt]}
    return data
