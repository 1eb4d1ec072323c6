"""The router: deployments heard, groups made by HTTP, feedback kept once."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.events.base import AssetRef
from shared.events.router import GroupChanged
from shared.events.upstream import FeedbackReceived
from shared.ids import new_id
from tests.faults.stories.base import INBOX, NAMES, RELAY, Story, once_each
from tests.integration.router_story import asset, decided, deployed, named, statement

ROWS = 3


class RouterStory(Story):
    service = "router"
    points = (*INBOX, *RELAY, "http.committed")

    async def prepare(self) -> None:
        self.groups: list[str] = []
        self.versions: list[AssetRef] = []
        self.remarks: list[str] = []

    async def step(self, number: int) -> None:
        """A version that answers, with its approval; of every other one a group, and feedback on its requests."""
        version = asset(number // NAMES + 1, f"model-{number % NAMES}")
        self.versions.append(version)
        approval = statement(self.world.installation, version)
        await self.publish(deployed(version, approval))
        await self.publish(decided(version, "approved", approval))
        if number % 2 == 0:
            self.groups.append(f"group-{number}")
            self.world.beside(self._group(f"group-{number}", version))

    async def _group(self, name: str, champion: AssetRef) -> None:
        body = {"name": name, "champion": named(champion), "reason": "a story"}
        await self.world.post("/router/v1/groups", body, until=("not-deployed", "not-approved"))
        for place in range(ROWS):
            request_id, remark = new_id(), f"{name} {place}"
            self.remarks.append(remark)
            if place == 0:
                said = {"request_id": str(request_id), "metric": "note", "value": remark}
                await self.world.post(f"/router/v1/groups/{name}/feedback", said)
            else:
                now = datetime.now(UTC)
                event = FeedbackReceived(
                    group=name, request_id=request_id, metric="note", value=remark, observed_at=now
                )
                await self.publish(event)

    async def complaints(self) -> list[str]:
        tape = self.world.tape
        served = await self.world.rows("SELECT urn, version FROM served_version")
        found = once_each("served", self.versions, (f"{row['urn']}@{row['version']}" for row in served))
        found += once_each("group.changed", self.groups, (event.group for event in tape.once(GroupChanged)))
        groups = await self.world.rows("SELECT name, revision FROM model_group")
        found += once_each("group", ((name, 1) for name in self.groups), ((g["name"], g["revision"]) for g in groups))
        feedback = await self.world.rows("SELECT label FROM feedback")
        found += once_each("feedback", self.remarks, (row["label"] for row in feedback))
        said = [str(event.value) for event in tape.once(FeedbackReceived)]
        return found + once_each("feedback.received", self.remarks, said)
