"""What docs/how-to/{reuse-before-build,query-with-graphql}.md tell people to run is run, as it stands there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from guide import blocks, run, served
from registry_story import a_model, model_bytes, registry

from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)


async def test_the_pages_commands(installation: Installation, tmp_path: Path) -> None:
    async with registry(installation) as it:
        await installation.start("policy")
        await it.upload(model_bytes())
        text = "Predicts whether a person is employed, from census records."
        await it.register(a_model("employment", task="classification", licence="MIT", description=text))
        async with served(installation, "registry") as url, served(installation, "policy") as policy:

            async def follow(block: str, at: str = url) -> str:
                environment = {"MINTMARK_URL": at, "MINTMARK_API_KEY": it.key}
                return await run(environment, "sh", "-ec", f"cd '{tmp_path}'\n{block}")

            describe, use, rule, rate = blocks("reuse-before-build.md", "sh")
            assert "('mm:model/employment', 1, 0." in (said := (await follow(describe)).replace("[(", "(", 1)), said
            said = await follow(use)
            assert '"outcome":"reuse"' in said and '"purpose":"letters to employers"' in said, said
            assert '"rate":1.0' in await follow(rate)
            assert '"intents":true' in await follow(rule, policy)
            await eventually(
                lambda: it.client.get("/registry/v1/protection"), lambda answer: answer.json()["intents"], what="rule"
            )
            (example,) = blocks("reuse-before-build.md", "json")
            assert set(json.loads(example)) == {"why_not", "reason"}

            whole, search = blocks("query-with-graphql.md", "sh")
            said = await follow(whole)
            assert '"bindings":[{"consumer":"labour-office"}]' in said and '"errors"' not in said, said
            said = await follow(search)
            assert '"total":1' in said and '"errors"' not in said, said
