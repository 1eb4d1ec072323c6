"""What tests of prompts' evaluations stand on: golden rows about capitals, a prompt or two, what is asked of whom."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest_asyncio
from oracle import Oracle, capital, question

from services.router.gateway.testing.stub import served
from shared.artefacts import open_store
from shared.events.base import Actor, Artefact, AssetRef
from shared.events.evaluator import EvalCompleted
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetFile, DatasetVersion, EvalRequested, Manifest
from shared.ids import sha256
from shared.testing.installation import Installation

ADA = Actor(id="user:ada", proven=True)
AT = "2026-11-20T10:00:00Z"
GOLDEN = DatasetVersion(urn="mm:dataset/capitals", version=1)
ONE_WORD = {"text": "In one word: {{ question }}", "variables": {"question": {"type": "string"}}}
CHATTY = {"text": "{{ question }}", "variables": {"question": {"type": "string"}}}


@pytest_asyncio.fixture
async def oracle() -> AsyncIterator[tuple[Oracle, str]]:
    model = Oracle()
    async with served(model) as port:
        yield model, f"http://127.0.0.1:{port}"


def golden_rows(count: int) -> list[dict[str, Any]]:
    return [{"question": question(number), "label": capital(number)} for number in range(1, count + 1)]


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


async def golden(
    installation: Installation, rows: list[dict[str, Any]] | bytes, of: DatasetVersion = GOLDEN, **more: Any
) -> None:
    """The golden set, known to everybody: rows as Parquet, or bytes in the format that `more` names."""
    content = rows if isinstance(rows, bytes) else as_parquet(rows)
    await open_store(installation.platform()).put_bytes(content)
    file = DatasetFile(
        path="golden", digest=sha256(content), size=len(content), rows=1, split="golden",
        format=more.pop("format", "parquet"),
    )  # fmt: skip
    manifest = Manifest(files=(file,), source="test", licence="none", **{"label": "label", **more})
    asset = AssetRef(urn=of.urn, version=of.version, digest="sha256:" + "d" * 64)
    await installation.publish(DatasetRegistered(asset=asset, manifest=manifest, author=ADA, registered_at=AT))


async def registered(
    installation: Installation, document: dict[str, Any] | bytes, version: int = 1, **more: Any
) -> AssetRef:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    await open_store(installation.platform()).put_bytes(content)
    asset = AssetRef(urn="mm:prompt/capitals", version=version, digest=sha256(content + bytes([version])))
    event = AssetRegistered(
        asset=asset, submission_id=uuid4(), kind="prompt", artefact=Artefact(digest=sha256(content), format="text"),
        author=ADA, registered_at=AT, **more,
    )  # fmt: skip
    await installation.publish(event)
    return asset


async def start(installation: Installation, url: str | None, **more: Any) -> None:
    settings = {"answers_group": "oracle", "gateway_key": "mm-key", "gateway_pause_s": 0.2, **more}
    await installation.start("evaluator", require_approved_datasets=False, gateway_url=url, **settings)


def wanted(asset: AssetRef, **more: Any) -> EvalRequested:
    fields = {"request_id": uuid4(), "golden_set": GOLDEN, "template": "question-answering", **more}
    return EvalRequested(asset=asset, **fields)


async def report_of(installation: Installation, done: EvalCompleted) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await open_store(installation.platform()).get(done.report))
    return found
