"""What versions did in traffic stands next to them: the newest word of each group, and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from registry_story import Registry, registry

from shared.events.base import Actor, AssetRef, Interval
from shared.events.router import Arm, GroupChanged, GroupMeasured, LiveFigures
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
BEGIN = datetime(2026, 11, 20, 10, tzinfo=UTC)
RITA = Actor(id="user:rita", proven=True)


def measured(hours: int, *figures: LiveFigures, group: str = "live") -> GroupMeasured:
    return GroupMeasured(group=group, since=BEGIN, until=BEGIN + timedelta(hours=hours), figures=figures)


def figures(asset: AssetRef, role: str, requests: int, accuracy: float | None = None) -> LiveFigures:
    measures = {}
    if accuracy is not None:
        measures["accuracy"] = Interval(
            value=accuracy, low=accuracy - 0.1, high=accuracy + 0.1, n=requests, method="confidence sequence"
        )
    return LiveFigures.model_validate(
        {"asset": asset, "role": role, "requests": requests, "errors": 1, "latency_ms": {"p50": 8.0},
         "measures": measures}
    )  # fmt: skip


def changed(revision: int, *arms: tuple[AssetRef, str, int]) -> GroupChanged:
    shares = tuple(Arm.model_validate({"asset": asset, "role": role, "weight_bp": bp}) for asset, role, bp in arms)
    return GroupChanged(group="live", revision=revision, arms=shares, actor=RITA, at=BEGIN)


async def live(it: Registry, asset: AssetRef) -> list[dict[str, Any]]:
    kind, name = asset.urn.removeprefix("mm:").split("/")
    answer = await it.client.get(f"/registry/v1/assets/{kind}/{name}/versions/{asset.version}")
    return list(answer.json()["live"])


def requests(found: list[dict[str, Any]]) -> list[tuple[str, str, list[tuple[str, int]]]]:
    return [(one["group"], one["role"], [(each["role"], each["requests"]) for each in one["figures"]]) for one in found]


async def test_the_newest_figures_of_each_group_stand_next_to_a_version(installation: Installation) -> None:
    stranger = installation.key("user:eve", "owner", workspace="elsewhere")
    async with registry(installation) as it:
        one, two = await it.models(2)
        say = installation.publish
        await say(changed(1, (one, "champion", 9_000), (two, "challenger", 1_000)))

        async def of_two() -> list[tuple[str, str, list[tuple[str, int]]]]:
            return requests(await live(it, two))

        await eventually(of_two, lambda found: found == [("live", "challenger", [])], what="the group")
        new = measured(
            2, figures(one, "champion", 900, 0.8), figures(two, "challenger", 100), figures(two, "shadow", 70)
        )
        await say(new, times=2)
        both = [("live", "challenger", [("challenger", 100), ("shadow", 70)])]
        await eventually(of_two, lambda found: [(*one[:2], sorted(one[2])) for one in found] == both, what="figures")
        (shown,) = await live(it, one)
        assert (shown["role"], shown["weight_bp"]) == ("champion", 9_000)
        assert shown["figures_at"] == "/router/v1/groups/live/comparison"
        (told,) = shown["figures"]
        assert (told["since"], told["until"]) == ("2026-11-20T10:00:00Z", "2026-11-20T12:00:00Z")
        assert (told["errors"], told["latency_ms"]) == (1, {"p50": 8.0})
        assert (
            told["measures"]["accuracy"]
            == figures(one, "champion", 900, 0.8).model_dump(mode="json")["measures"]["accuracy"]
        )

        # Older than what is known, from another workspace, and newer: only the last one changes anything.
        await say(measured(1, figures(one, "champion", 5), figures(two, "challenger", 5)))
        await say(measured(9, figures(one, "champion", 6)), workspace="elsewhere")
        await say(measured(3, figures(two, "challenger", 200), group="other"))
        await say(measured(4, figures(one, "former", 950), figures(two, "champion", 300)))
        await say(changed(2, (two, "champion", 10_000)))

        async def of_one() -> list[tuple[str, str, list[tuple[str, int]]]]:
            return requests(await live(it, one))

        await eventually(of_one, lambda found: found == [("live", "former", [("former", 950)])], what="the later word")
        expected = [
            ("live", "champion", [("champion", 300), ("shadow", 70)]),
            ("other", "challenger", [("challenger", 200)]),
        ]
        await eventually(of_two, lambda found: found == expected, what="both groups")

        query = "query ($urn: String!) { version(urn: $urn, version: 2) { live { group role weightBp figures } } }"
        asked = {"query": query, "variables": {"urn": two.urn}}
        answer = (await it.client.post("/registry/graphql", json=asked)).json()
        assert requests(answer["data"]["version"]["live"]) == expected
        async with installation.services["registry"].database.begin("default") as tx:
            kept = await tx.connection.fetchval("SELECT count(*) FROM finding WHERE kind = 'live'")
        assert kept == 4, "a word a version, group and kind of traffic, however often it is said"
        async with installation.client("registry", stranger) as other:
            assert (await other.get(f"/registry/v1/assets/model/{one.name}/versions/1")).status_code == 404
