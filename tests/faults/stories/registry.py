"""The registry: submissions by Kafka, by HTTP and with a uri; versions without gap, each answered once."""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID, uuid4

from shared.artefacts import open_store
from shared.events.base import Artefact
from shared.events.registry import AssetRefused, AssetRegistered
from shared.events.upstream import AssetSubmitted, RunCompleted
from shared.ids import sha256
from tests.faults.stories.base import AT, INBOX, NAMES, RELAY, Story, once_each


class RegistryStory(Story):
    service = "registry"
    points = (*INBOX, "http.committed", "worker.claimed", "fold.folded", *RELAY)

    async def prepare(self) -> None:
        self.submitted: dict[UUID, str] = {}
        self.runs: list[str] = []
        self.outside = self.world.installation.folder / "outside"
        self.outside.mkdir()
        self.world.environment["MINTMARK_REGISTRY_SOURCE_ROOTS"] = str(self.outside)

    async def step(self, number: int) -> None:
        """By turns: an event, one with a uri to fetch, a request, an event of another service's work."""
        name, way = f"model-{number % NAMES}", ("event", "uri", "request", "event", "run")[number % 5]
        data = b"tree\nversion=v4\nnum_class=1\n# %d\n" % number
        if way == "run":
            run = RunCompleted(run_id=f"run-{number}", name=name, status="finished", started_at=AT, ended_at=AT)
            self.runs.append(run.run_id)
            await self.publish(run)
            return
        uri = None
        if way == "uri":
            (self.outside / f"{number}.txt").write_bytes(data)
            uri = (self.outside / f"{number}.txt").as_uri()
        else:
            await open_store(self.world.installation.platform()).put_bytes(data)
        artefact = Artefact(digest=sha256(data), format="lightgbm", uri=uri)
        event = AssetSubmitted(submission_id=uuid4(), kind="model", name=name, artefact=artefact)
        self.submitted[event.submission_id] = event.urn
        if way == "request":
            self.world.beside(self.world.post("/registry/v1/submissions", event.model_dump(mode="json")))
        else:
            await self.publish(event, signed=True)

    async def complaints(self) -> list[str]:
        answers = self.world.tape.once(AssetRegistered)
        found = once_each("asset.registered", self.submitted, (event.submission_id for event in answers))
        found += [f"refused: {event.reason}" for event in self.world.tape.once(AssetRefused)]
        wanted: dict[str, int] = defaultdict(int)
        for urn in self.submitted.values():
            wanted[urn] += 1
        versions = await self.world.rows("SELECT urn, version, submission_id FROM version")
        found += once_each("version", self.submitted, (row["submission_id"] for row in versions))
        for urn, count in wanted.items():
            numbers = sorted(row["version"] for row in versions if row["urn"] == urn)
            if numbers != list(range(1, count + 1)):
                found.append(f"{urn} has versions {numbers}, not 1 to {count}")
        (indexed,) = await self.world.rows(
            "SELECT coalesce((SELECT sum(versions) FROM vocabulary WHERE term = 'all='), 0)::bigint AS folded, "
            "(SELECT count(*) FROM search_change WHERE 'all=' = ANY(come)) AS waiting"
        )
        if indexed["folded"] + indexed["waiting"] != len(versions):
            found.append(f"search knows {dict(indexed)} of {len(versions)} versions")
        return found
