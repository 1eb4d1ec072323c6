"""Prompts: versions published by HTTP, each once and without gap, and what the registry made of them."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from shared.events.base import AssetRef
from shared.events.prompts import PromptPublished
from shared.events.registry import AssetRegistered
from shared.events.upstream import AssetSubmitted
from shared.ids import sha256
from tests.faults.stories.base import ADA, AT, INBOX, NAMES, RELAY, Story, once_each


class PromptsStory(Story):
    service = "prompts"
    points = (*INBOX, *RELAY, "http.committed")

    async def prepare(self) -> None:
        self.published: list[tuple[str, str]] = []

    async def step(self, number: int) -> None:
        """A version; once it is there, the registry says that it is an asset."""
        name, text = f"prompt-{number % NAMES}", f"Say {number} to {{{{who}}}}"
        self.published.append((name, text))
        self.world.beside(self._publish(name, text))

    async def _publish(self, name: str, text: str) -> None:
        # The answer may be lost with the process that would have given it: what took effect is in the table.
        await self.world.post(f"/prompts/v1/prompts/{name}/versions", {"text": text})
        query = "SELECT version, submission_id, digest FROM prompt_version WHERE content ->> 'text' = $1"
        (row,) = await self.world.rows(query, text)
        asset = AssetRef(urn=f"mm:prompt/{name}", version=row["version"], digest=sha256(text.encode()))
        registered = AssetRegistered(
            asset=asset, submission_id=row["submission_id"], kind="prompt", author=ADA, registered_at=AT
        )
        await self.publish(registered)

    async def complaints(self) -> list[str]:
        rows = await self.world.rows(
            "SELECT name, version, submission_id, state, content ->> 'text' AS text FROM prompt_version"
        )
        found = once_each("version", self.published, ((row["name"], row["text"]) for row in rows))
        submissions: list[UUID] = [row["submission_id"] for row in rows]
        tape = self.world.tape
        found += once_each("prompt.published", submissions, (e.submission_id for e in tape.once(PromptPublished)))
        found += once_each("asset.submitted", submissions, (e.submission_id for e in tape.once(AssetSubmitted)))
        found += [f"{row['name']}@{row['version']} is {row['state']}" for row in rows if row["state"] != "registered"]
        for name, count in Counter(name for name, _ in self.published).items():
            numbers = sorted(row["version"] for row in rows if row["name"] == name)
            if numbers != list(range(1, count + 1)):
                found.append(f"{name} has versions {numbers}, not 1 to {count}")
        return found
