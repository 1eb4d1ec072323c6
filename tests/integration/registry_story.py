"""What the registry's stories stand on: small models and datasets, and the two ways to submit them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from shared.events.base import Artefact, AssetRef
from shared.events.registry import AssetRegistered
from shared.events.upstream import AssetSubmitted, DatasetFile, Manifest
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

ROWS = b"PAR1 golden rows PAR1"


def model_bytes(number: int = 0) -> bytes:
    """A LightGBM text model as far as its first lines go; each number another one."""
    return b"tree\nversion=v4\nnum_class=1\nfeature_names=f%d\n" % number


def a_model(name: str = "credit-pd", data: bytes | None = None, **more: Any) -> AssetSubmitted:
    data = model_bytes() if data is None else data
    fields = {"submission_id": uuid4(), "kind": "model", "name": name, **more}
    fields.setdefault("artefact", Artefact(digest=sha256(data), format="lightgbm"))
    return AssetSubmitted.model_validate(fields)


def a_dataset(name: str = "census", data: bytes = ROWS, **more: Any) -> AssetSubmitted:
    file = DatasetFile(path="golden.parquet", digest=sha256(data), size=len(data), rows=1, split="golden")
    manifest = Manifest(files=(file,), label="y", source="made for a test", licence="CC0-1.0")
    return AssetSubmitted.model_validate(
        {"submission_id": uuid4(), "kind": "dataset", "name": name, "manifest": manifest, **more}
    )


@dataclass
class Registry:
    """A running registry and a publisher's way into it."""

    installation: Installation
    key: str
    client: httpx.AsyncClient

    async def upload(self, *many: bytes) -> None:
        for data in many:
            answer = await self.client.put(f"/registry/v1/artefacts/{sha256(data)}", content=data)
            assert answer.status_code == 201, answer.text

    async def submit(self, event: AssetSubmitted) -> dict[str, Any]:
        """By HTTP; the view of the submission."""
        answer = await self.client.post("/registry/v1/submissions", content=event.model_dump_json())
        assert answer.status_code == 202, answer.text
        view: dict[str, Any] = answer.json()
        return view

    async def register(self, event: AssetSubmitted) -> AssetRef:
        """By HTTP, with its bytes here already; what it became."""
        view = await self.submit(event)
        assert view["state"] == "registered", view
        kind, name = event.kind, event.name
        found = (await self.client.get(f"/registry/v1/assets/{kind}/{name}/versions/{view['version']}")).json()
        return AssetRef(urn=found["urn"], version=found["version"], digest=found["digest"])

    async def models(self, count: int, name: str = "credit-pd") -> list[AssetRef]:
        """So many versions of a model."""
        found = []
        for number in range(count):
            await self.upload(model_bytes(number))
            found.append(await self.register(a_model(name, model_bytes(number))))
        return found

    async def decided(self, event: AssetSubmitted) -> dict[str, Any]:
        """The submission once it is registered or refused."""

        async def look() -> dict[str, Any]:
            view: dict[str, Any] = (await self.client.get(f"/registry/v1/submissions/{event.submission_id}")).json()
            return view

        return await eventually(look, lambda view: view.get("state") in ("registered", "refused"), what="the decision")

    async def registered(self, *events: AssetSubmitted) -> list[AssetRegistered]:
        """The answers on Kafka to submissions, in their order."""
        wanted = {event.submission_id: None for event in events}

        async def look() -> dict[Any, AssetRegistered]:
            return {event.submission_id: event for event in await self.installation.events(AssetRegistered)}

        found = await eventually(look, lambda seen: wanted.keys() <= seen.keys(), what="asset.registered")
        return [found[submission_id] for submission_id in wanted]


@asynccontextmanager
async def registry(installation: Installation, **settings: Any) -> AsyncIterator[Registry]:
    """The registry, started, with the key of an owner."""
    key = installation.key("user:ada", "owner")
    await installation.start("registry", **settings)
    async with installation.client("registry", key) as client:
        client.headers["content-type"] = "application/json"
        yield Registry(installation, key, client)


async def all_of(*awaited: Any) -> list[Any]:
    return list(await asyncio.gather(*awaited))
