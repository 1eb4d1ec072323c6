"""`mintmark groups` as people type it, against a real router and a real gateway."""

from __future__ import annotations

import asyncio
import json

import pytest
from guide import served
from mintmark.cli.main import app
from router_story import asset, deploy, named, traffic
from typer.testing import CliRunner

from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
ONE, TWO = "mm:model/tumour@1", "mm:model/tumour@2"


async def test_a_group_is_listed_shown_promoted_rolled_back_and_compared(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = installation.key("user:rita", "owner")
    viewer = installation.key("user:vera", "viewer")
    await installation.start("router")
    async with (
        installation.client("router", key) as client,
        served(installation, "router") as url,
        traffic(installation, key) as live,
    ):
        monkeypatch.setenv("MINTMARK_URL", url)
        monkeypatch.setenv("MINTMARK_API_KEY", key)

        async def type_in(*words: str, code: int = 0) -> str:
            result = await asyncio.to_thread(CliRunner().invoke, app, ["groups", *words])
            assert result.exit_code == code, result.output
            return result.output

        assert "there is no group yet" in await type_in("list")
        await deploy(installation, client, live.load(asset(1), 3), live.load(asset(2), 9), endpoint=live.server.url)
        await client.post("/router/v1/groups", json={"name": "live", "champion": named(asset(1)), "reason": "first"})
        challenge = {"challengers": [{"asset": named(asset(2)), "weight_bp": 2500}], "expected_revision": 1}
        assert (await client.put("/router/v1/groups/live/challengers", json=challenge)).status_code == 200
        await live.until_group("live")
        for row in range(20):
            assert (await live.ask("live", row)).status_code == 200

        listed = await type_in("list")
        assert ONE in listed and f"{TWO} 25 %" in listed
        assert json.loads(await type_in("list", "--json"))[0]["name"] == "live"
        shown = await type_in("show", "live")
        assert "75 %" in shown and "created" in shown and "first" in shown

        async def seen() -> str:
            return await type_in("rows", "live", "-n", "5")

        rows = await eventually(seen, lambda text: text.count("patient-") == 5, what="rows")
        assert "champion" in rows and "200" in rows
        compared = await eventually(
            lambda: type_in("comparison", "live"), lambda text: TWO in text, what="the comparison"
        )
        assert "challenger" in compared and f"{TWO}: " in compared

        unclear = await type_in("promote", "live", "7", "--reason", "x", code=2)
        assert f"7 is not one challenger of live; there is {TWO}" in unclear
        assert f"{TWO} is champion, revision 3" in await type_in("promote", "live", "2", "--reason", "better")
        again = await type_in("promote", "live", TWO, "--reason", "again", code=5)
        assert "already-champion" in again
        assert f"{ONE} is champion again, revision 4" in await type_in("rollback", "live", "--reason", "complaints")
        assert "unknown-group" in await type_in("show", "lives", code=3)
        monkeypatch.setenv("MINTMARK_API_KEY", viewer)
        assert "forbidden" in await type_in("rollback", "live", "--reason", "mine", code=4)
        monkeypatch.setenv("MINTMARK_URL", "http://127.0.0.1:9")
        assert "is it up?" in await type_in("list", code=1)
