"""Many at once with an answer an item, and the catalog as a file that reads back."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from registry_story import a_model, model_bytes, registry

from services.registry.handlers import exporting
from services.registry.handlers.parquet import SCHEMA
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
V1 = "/registry/v1"


async def test_a_batch_answers_each_item_by_itself_and_is_the_same_again(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(*(model_bytes(number) for number in range(3)))
        items: list[dict[str, Any]] = [
            a_model("credit-pd", model_bytes(number)).model_dump(mode="json") for number in range(3)
        ]
        items.insert(1, {**items[0], "kind": "no-such-kind"})
        items.insert(2, a_model("credit-pd", model_bytes(99)).model_dump(mode="json"))
        key = {"idempotency-key": "batch-1"}
        made = await it.client.post(f"{V1}/submissions:batchCreate", json={"items": items}, headers=key)
        assert made.status_code == 200, made.text
        view = made.json()
        assert [item["status"] for item in view["items"]] == [202, 422, 202, 202, 202]
        assert view["items"][1]["problem"]["errors"][0]["field"] == "kind"
        states = [item["body"]["state"] for item in view["items"] if item["body"]]
        assert states == ["registered", "refused", "registered", "registered"]
        assert (view["done"], view["refused"]) == (4, 1)
        again = await it.client.post(f"{V1}/submissions:batchCreate", json={"items": items}, headers=key)
        assert again.headers["idempotency-replayed"] == "true" and again.json() == view

        urn = "mm:model/credit-pd"
        aliases = [
            {"urn": urn, "alias": "champion", "version": 2, "reason": "better", "if_none_match": "*"},
            {"urn": urn, "alias": "champion", "version": 3, "reason": "better", "if_none_match": "*"},
            {"urn": urn, "alias": "latest", "version": 1, "reason": "no", "if_none_match": "*"},
            {"urn": urn, "alias": "older", "version": 9, "reason": "no", "if_none_match": "*"},
        ]
        moved = (await it.client.post(f"{V1}/aliases:batchCreate", json={"items": aliases})).json()["items"]
        assert [item["status"] for item in moved] == [200, 412, 422, 404]
        assert moved[0]["etag"] and moved[1]["problem"]["code"] == "precondition-failed"

        refs: list[dict[str, Any]] = [
            {"urn": urn, "version": 3}, {"urn": urn, "alias": "champion"}, {"urn": urn, "version": 9},
            {"urn": urn, "alias": "gone"}, {"urn": urn}, {"urn": "mm:model/none", "version": 1},
        ]  # fmt: skip
        got = (await it.client.post(f"{V1}/versions:batchGet", json={"items": refs})).json()["items"]
        assert [item["status"] for item in got] == [200, 200, 404, 404, 422, 404]
        assert [item["body"]["version"] for item in got[:2]] == [3, 2] and got[1]["body"]["aliases"] == ["champion"]

        tags = [
            {"urn": urn, "version": 3, "tags": {"team": "credit"}, "if_match": got[0]["etag"]},
            {"urn": urn, "version": 2, "tags": {"team": "credit"}},
        ]
        said = (await it.client.post(f"{V1}/tags:batchCreate", json={"items": tags})).json()["items"]
        assert [item["status"] for item in said] == [200, 428]
        assert said[0]["body"]["tags"] == {"team": "credit"}

        assert (await it.client.post(f"{V1}/versions:batchGet", json={"items": []})).status_code == 422
        many = [{"urn": urn, "version": 1}] * 501
        assert (await it.client.post(f"{V1}/versions:batchGet", json={"items": many})).status_code == 422


async def test_the_catalog_reads_back_from_its_export(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 2)
    key = installation.key("user:eve", "owner", workspace="elsewhere")
    async with registry(installation) as it:
        await it.upload(*(model_bytes(number) for number in range(5)))
        for number in range(5):
            tags = {"team": "credit" if number % 2 else "risk", "ж": "☃"}
            await it.register(
                a_model(f"m{number}", model_bytes(number), tags=tags, metrics={"auc": 0.5 + number / 10}, task="t")
            )
        answer = await it.client.get(f"{V1}/export")
        assert answer.headers["content-type"] == "application/vnd.apache.parquet"
        file = pq.ParquetFile(io.BytesIO(answer.content))
        assert file.metadata.num_row_groups == 3, "a page is a row group"
        rows = file.read().to_pylist(maps_as_pydicts="strict")
        assert [row["name"] for row in rows] == ["m4", "m3", "m2", "m1", "m0"]
        assert rows[1]["tags"] == {"team": "credit", "ж": "☃"} and rows[1]["metrics"] == {"auc": 0.8}
        assert json.loads(rows[0]["content"])["urn"] == "mm:model/m4"
        assert file.schema_arrow.equals(SCHEMA)

        lines = (await it.client.get(f"{V1}/export", params={"format": "jsonl", "tag.team": "credit"})).text
        found = [json.loads(line) for line in lines.splitlines()]
        assert [row["name"] for row in found] == ["m3", "m1"] and found[0]["content"]["task"] == "t"
        one = (await it.client.get(f"{V1}/assets/model/m3/versions/1")).json()
        assert (found[0]["digest"], found[0]["stage"], found[0]["tags"]) == (one["digest"], one["stage"], one["tags"])

        async with installation.client("registry", key) as other:
            nothing = pq.ParquetFile(io.BytesIO((await other.get(f"{V1}/export")).content))
            assert nothing.metadata.num_rows == 0 and nothing.schema_arrow.equals(SCHEMA)
            assert (await other.get(f"{V1}/export?format=jsonl")).content == b""
        assert (await it.client.get(f"{V1}/export?color=red")).status_code == 422
        better = {"format": "jsonl", "filter": "metrics.auc > 0.75 AND tags.team = 'risk'"}
        (best,) = (await it.client.get(f"{V1}/export", params=better)).text.splitlines()
        assert json.loads(best)["name"] == "m4"
