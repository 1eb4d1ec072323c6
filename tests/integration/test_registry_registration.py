"""Registering, from asset.submitted on Kafka or by HTTP to asset.registered."""

from __future__ import annotations

import json

import asyncpg
import pytest
from registry_story import ROWS, a_dataset, a_model, all_of, model_bytes, registry

from shared.events.registry import AssetRefused, AssetRegistered, DatasetRegistered
from shared.events.upstream import AssetSubmitted, DatasetVersion
from shared.ids import digest_of, sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)


async def test_a_dataset_and_a_model_are_registered_from_kafka(installation: Installation) -> None:
    key = installation.key("pipeline:credit", "publisher")
    async with registry(installation) as it:
        await it.upload(model_bytes(), ROWS)
        await installation.publish(a_dataset(), key=key)
        registered = await installation.wait_for(DatasetRegistered)
        assert registered.asset.urn == "mm:dataset/census" and registered.asset.version == 1
        assert registered.author.id == "pipeline:credit" and registered.author.proven

        model = a_model(golden_set=DatasetVersion(urn="mm:dataset/census", version=1), author="pipeline:credit")
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        event_id = await installation.publish(model, key=key, traceparent=parent)
        (answer,) = await it.registered(model)
        assert str(answer.asset) == "mm:model/credit-pd@1"
        assert answer.golden_set is not None and answer.golden_set.digest == registered.asset.digest
        assert answer.artefact is not None and answer.artefact.size == len(model_bytes())

        found = (await it.client.get("/registry/v1/assets/model/credit-pd")).json()["newest"]
        assert found["digest"] == answer.asset.digest == digest_of(found["content"])
        assert found["author"] == {"id": "pipeline:credit", "proven": True}
        again = await it.client.get(f"/registry/v1/artefacts/{sha256(model_bytes())}")
        assert again.content == model_bytes()
        record = (await installation.records("asset.registered"))[-1]
        headers = {name: value.decode() for name, value in record.headers}
        assert record.key == b"mm:model/credit-pd"
        assert headers["ce_causationid"] == event_id and headers["traceparent"].split("-")[1] == parent.split("-")[1]


async def test_without_claim_and_proof_the_author_is_unverified(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes())
        model = a_model()
        await installation.publish(model)
        (answer,) = await it.registered(model)
        assert answer.author.id == "unverified" and not answer.author.proven


async def test_a_hand_written_structured_event_is_enough(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes())
        model = a_model()
        event = {
            "specversion": "1.0",
            "id": "by-hand",
            "source": "hand",
            "type": "asset.submitted.v1",
            "data": {**json.loads(model.model_dump_json()), "a_field_of_tomorrow": 1},
        }
        headers = [("content-type", b"application/cloudevents+json")]
        await installation.send_raw("asset.submitted", json.dumps(event).encode(), headers)
        await it.registered(model)


async def test_twenty_at_once_get_the_numbers_one_to_twenty(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(*(model_bytes(number) for number in range(20)))
        events = [a_model(data=model_bytes(number)) for number in range(20)]
        broken = [a_model(data=b"never uploaded %d" % number) for number in range(5)]
        await all_of(
            *(it.submit(event) for event in events[:10] + broken),
            *(installation.publish(event, key=it.key) for event in events[10:]),
        )
        answers = await it.registered(*events)
        assert sorted(answer.asset.version for answer in answers) == list(range(1, 21))
        first = (await it.client.get("/registry/v1/assets/model/credit-pd/versions?page_size=15")).json()
        token = first["next_page_token"]
        rest = (
            await it.client.get(f"/registry/v1/assets/model/credit-pd/versions?page_size=15&page_token={token}")
        ).json()
        numbers = [version["version"] for version in first["items"] + rest["items"]]
        assert numbers == list(range(20, 0, -1)) and rest["next_page_token"] is None


async def test_the_same_content_is_one_version_and_every_submission_is_answered(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes(), model_bytes(1))
        first, second, other = a_model(), a_model(description="again"), a_model(data=model_bytes(1))
        await all_of(*(installation.publish(event, key=it.key) for event in (first, second, other)))
        answers = await it.registered(first, second, other)
        assert answers[0].asset == answers[1].asset != answers[2].asset
        assert answers[0].registered_at == answers[1].registered_at

        # The same submission again, as another event: the same answer again, and nothing new.
        before = len(await installation.events(AssetRegistered))
        await installation.publish(first, key=it.key)
        found = await eventually(lambda: installation.events(AssetRegistered), lambda seen: len(seen) > before)
        assert found[-1].submission_id == first.submission_id and found[-1].asset == answers[0].asset

        # Its id for something else is refused, and what was registered stays.
        stolen = a_model("other-model", submission_id=first.submission_id)
        await installation.publish(stolen, key=it.key)
        refused = await installation.wait_for(AssetRefused)
        assert refused.code == "submission-reused" and refused.urn == "mm:model/other-model"
        answer = await it.client.post("/registry/v1/submissions", content=stolen.model_dump_json())
        assert answer.status_code == 409 and answer.json()["code"] == "submission-reused"
        assert (await it.client.get("/registry/v1/assets/model/other-model")).status_code == 404


async def test_an_event_that_comes_five_times_registers_once(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes())
        model = a_model()
        await installation.publish(model, key=it.key, times=5)
        await it.registered(model)
        marker = a_model("marker")
        await installation.publish(marker, key=it.key)
        await it.registered(marker)
        assert len(await installation.events(AssetRegistered)) == 2


async def test_an_idempotency_key_makes_a_post_safe_to_repeat(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes())
        body, headers = a_model().model_dump_json(), {"idempotency-key": "once"}
        first = await it.client.post("/registry/v1/submissions", content=body, headers=headers)
        again = await it.client.post("/registry/v1/submissions", content=body, headers=headers)
        assert first.status_code == again.status_code == 202 and first.json() == again.json()
        assert again.headers["idempotency-replayed"] == "true"
        other = await it.client.post(
            "/registry/v1/submissions", content=a_model("x2").model_dump_json(), headers=headers
        )
        assert other.status_code == 422
        assert len(await eventually(lambda: installation.events(AssetRegistered), bool)) == 1


async def test_versions_and_logs_cannot_be_changed_in_the_database(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.models(1)
        connection = await asyncpg.connect(installation.dsn("registry"))
        try:
            for statement in (
                "UPDATE registry.version SET digest = digest",
                "DELETE FROM registry.version",
                "DELETE FROM registry.alias_move",
                "UPDATE registry.stage_move SET at = now()",
                "TRUNCATE registry.stage_move",
            ):
                with pytest.raises(asyncpg.RestrictViolationError):
                    await connection.execute(statement)
        finally:
            await connection.close()


async def test_an_upload_is_hashed_as_it_passes(installation: Installation) -> None:
    async with registry(installation) as it:
        folder = installation.folder / "artefacts"
        wrong = f"/registry/v1/artefacts/{sha256(b'something else')}"

        async def chunks() -> object:
            for _ in range(64):
                yield b"x" * 65_536

        answer = await it.client.put(wrong, content=chunks())
        assert answer.status_code == 422 and answer.json()["code"] == "digest-mismatch"
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        assert (await it.client.get(wrong)).status_code == 404
        for digest in ("sha256:abc", "md5:" + "0" * 64, "..%2f..%2fetc", "sha256:" + "A" * 64):
            assert (await it.client.put(f"/registry/v1/artefacts/{digest}", content=b"x")).status_code in (404, 422)
        await it.upload(b"x" * 3_000_000)
        assert (await it.client.get(f"/registry/v1/artefacts/{sha256(b'x' * 3_000_000)}")).content == b"x" * 3_000_000


async def test_a_prompts_author_is_who_the_prompts_service_says(installation: Installation) -> None:
    from shared.events.base import Actor, Artefact
    from shared.events.prompts import PromptPublished

    async with registry(installation) as it:
        text = b"You are a careful clerk."
        await it.upload(text)

        def prompt(name: str) -> tuple[AssetSubmitted, PromptPublished]:
            artefact = Artefact(digest=sha256(text), format="text")
            submitted = a_model(name, kind="prompt", artefact=artefact, author="user:bob")
            published = PromptPublished(
                name=name,
                version=4,
                digest=sha256(text),
                submission_id=submitted.submission_id,
                actor=Actor(id="user:bob", proven=True),
            )
            return submitted, published

        for order in (0, 1):
            pair = prompt(f"clerk-{order}")
            for event in (pair[order], pair[1 - order]):
                await installation.publish(event)
            (answer,) = await it.registered(pair[0])
            assert answer.author.id == "user:bob" and answer.author.proven
            graph = await it.client.get(f"/registry/v1/lineage?node=prompt:clerk-{order}@4&max_depth=1")
            assert [edge["association"] for edge in graph.json()["edges"]] == ["SameAs"]
