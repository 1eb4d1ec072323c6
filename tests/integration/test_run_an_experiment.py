"""What docs/how-to/run-an-experiment.md tells people to run is run, as it stands there, against real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from guide import blocks, router_process, run
from router_story import asset, deploy, named, traffic

from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(170)
GUIDE = "run-an-experiment.md"


async def test_what_the_guide_says_ramps_compares_promotes_and_goes_back(
    installation: Installation, tmp_path: Path
) -> None:
    owner = installation.key("user:owner", "owner")
    one, two = asset(1, "census"), asset(2, "census")
    async with router_process(installation, owner) as client, traffic(installation, owner) as live:
        await deploy(
            installation, client, live.load(one, rounds=3), live.load(two, rounds=30), endpoint=live.server.url
        )
        made = await client.post("/router/v1/groups", json={"name": "live", "champion": named(one)})
        assert made.status_code == 201, made.text
        await live.until_group("live")
        setup, ramp, share, compare, promote, bandit = blocks(GUIDE, "sh")
        environment = {"MINTMARK_URL": str(client.base_url).rstrip("/"), "MINTMARK_API_KEY": owner}

        async def follow(block: str) -> str:
            return await run(environment, "sh", "-ec", f"cd '{tmp_path}'\n{setup}\n{block}")

        said = await follow(ramp)
        assert '"phase":"running"' in said and '"phase":"aborted"' in said, said
        assert '"weight_bp":5000' in await follow(share)
        await asyncio.gather(*(live.ask("live", row) for row in range(40)))
        said = await follow(compare)
        assert '"sentence":' in said and "event: comparison" in said, said
        said = await follow(promote)
        assert '"change":"promoted"' in said and '"change":"rolled_back"' in said, said
        said = await follow(bandit)
        assert '"kind":"bandit"' in said and '"phase":"aborted"' in said, said
