"""What docs/how-to/{trace-lineage,govern-datasets}.md tell people to run is run, as it stands there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from guide import blocks, run, served
from registry_story import ROWS, a_dataset, a_model, model_bytes, registry
from test_registry_lineage import settled, the_road

from shared.events.upstream import DatasetVersion, Training
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)


async def test_the_pages_commands(installation: Installation, tmp_path: Path) -> None:
    async with registry(installation) as it, served(installation, "registry") as url:
        await it.upload(ROWS, model_bytes())
        census = await it.register(a_dataset())
        asset = await it.register(a_model(training=Training(dataset=DatasetVersion(urn=census.urn, version=1))))
        await settled(it, str(asset), set((await the_road(it, asset, census)).values()))
        environment = {"MINTMARK_URL": url, "MINTMARK_API_KEY": it.key}

        async def follow(block: str) -> str:
            return await run(environment, "sh", "-ec", f"cd '{tmp_path}'\n{block}")

        upstream, impact, way, theirs, told = blocks("trace-lineage.md", "sh")
        assert '"label":"census 1 (development)"' in await follow(upstream)
        said = await follow(impact)
        assert '"serving":[{"group":"live"' in said and '"truncated":false' in said, said
        assert '"found":true' in await follow(way)
        (emit,) = blocks("trace-lineage.md", "python")
        await run(environment, sys.executable, "-c", emit)
        said = await follow(theirs)
        assert '"credit-pd 1 (development)"' in said, said
        assert '"name":"registration/credit-pd"' in await follow(told)

        one, croissant, golden, going, hold = blocks("govern-datasets.md", "sh")
        assert '"approver":{"id":"user:bob"' in await follow(one)
        said = await follow(croissant)
        assert '"submission":null' in said and '"split":"golden"' in said, said
        said = await follow(golden)
        assert said.count('"reason":"the measure of 2027"') == 2, said
        assert await follow(going) == "[]"
        assert '"what":"hold"' in await follow(hold)
