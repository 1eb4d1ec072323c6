"""Three very different foreign files become models with metrics, features and charts, by rules and with help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from registry_story import Registry, model_bytes, registry

from services.router.gateway.testing.stub import Exchange, served
from shared.events.registry import AssetRegistered
from shared.ids import sha256
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
FILES = Path(__file__).parents[1] / "foreign"
FOREIGN = "/registry/v1/foreign"


def foreign(name: str) -> bytes:
    return (FILES / f"{name}.json").read_bytes()


async def proposed(it: Registry, data: bytes, **query: str) -> dict[str, Any]:
    answer = await it.client.post(FOREIGN, content=data, params=query)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def values(proposal: dict[str, Any]) -> dict[str, Any]:
    return {one["field"]: one["value"] for one in proposal["fields"]}


async def accepted(it: Registry, proposal: dict[str, Any], **body: str) -> dict[str, Any]:
    """The version that a proposal becomes."""
    answer = await it.client.post(f"{FOREIGN}/{proposal['proposal_id']}:accept", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def version(it: Registry, became: dict[str, Any], what: str = "") -> dict[str, Any]:
    kind_and_name = became["urn"].removeprefix("mm:")
    answer = await it.client.get(f"/registry/v1/assets/{kind_and_name}/versions/{became['version']}{what}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


class Helper:
    """A gateway's chat completions: answers with these pairs, and keeps what it was asked."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = pairs
        self.asked: list[dict[str, Any]] = []
        self.keys: list[bytes] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.asked.append(orjson.loads(exchange.body))
        self.keys.append(exchange.headers[b"authorization"])
        pairs = [{"field": field, "pointer": pointer, "reason": "so it reads"} for field, pointer in self.pairs]
        content = json.dumps({"fields": pairs})
        body = orjson.dumps({"choices": [{"message": {"role": "assistant", "content": f"```json\n{content}\n```"}}]})
        await exchange.answer(200, body)


async def test_three_foreign_files_become_models_by_rules_alone(installation: Installation) -> None:
    async with registry(installation) as it:
        scorecard = await accepted(it, await proposed(it, foreign("scorecard")))
        found, beside = await version(it, scorecard), await version(it, scorecard, "/imports")
        assert found["title"] == "Credit PD Scorecard (v2)" and found["content"]["task"] == "classification"
        assert found["metrics"]["test.auc"] == 0.873 and found["metrics"]["test.accuracy"] == 0.861
        assert found["metrics"]["test.latency_ms"] == 12.5
        inputs = {one["name"]: one["datatype"] for one in found["content"]["signature"]["inputs"]}
        assert inputs == {"age": "INT64", "income": "FP64", "region": "BYTES"}
        assert found["content"]["training"]["parameters"]["booster.learning_rate"] == 0.05
        search = {"filter": "kind = 'model' AND version >= 1"}
        numbered = (await it.client.get("/registry/v1/search", params=search)).json()
        assert [one["name"] for one in numbered["items"]] == [found["name"]], "its number is in the index"
        assert {chart["type"] for chart in beside["charts"].values()} == {
            "roc_curve",
            "confusion_matrix",
            "feature_importance",
        }
        assert beside["extra"]["/internal_ticket"] == {"queue": "RISK", "number": 17}
        whole = await it.client.get(f"/registry/v1/artefacts/{beside['imports'][0]['document']}")
        assert whole.content == foreign("scorecard")

        card = await version(it, await accepted(it, await proposed(it, foreign("model-index"))))
        assert card["metrics"] == {"cnn_daily_mail.rouge1": 44.1, "cnn_daily_mail.rouge_l": 30.2, "x_sum.rouge1": 39.0}
        assert card["content"]["licence"] == "llama3.1" and card["tags"]["framework"] == "transformers"
        licence = await it.client.get(f"/registry/v1/assets/model/{card['name']}/versions/1/licence")
        assert licence.json()["declared"]["expression"] == "llama3.1"

        proposal = await proposed(it, foreign("prognose"))
        assert "/Kennzahlen" in proposal["unmapped"] and "no model is connected" in proposal["notes"][0]
        odd = await accepted(it, proposal)
        assert (await version(it, odd, "/imports"))["extra"]["/Kennzahlen"]["Trefferquote"] == "91,2 %"
        event = await installation.wait_for(AssetRegistered, lambda one: one.asset.urn == odd["urn"])
        assert event.artefact is None and {one.name for one in event.signature.inputs} == {
            "alter",
            "ort",
            "vorschaeden",
        }

        # The same document again is the same version; another of the same name is the next one.
        again = await accepted(it, await proposed(it, foreign("scorecard")))
        assert (again["urn"], again["version"]) == (scorecard["urn"], 1)
        other = foreign("scorecard").replace(b'"0.873"', b'"0.9"')
        assert (await accepted(it, await proposed(it, other)))["version"] == 2


async def test_what_rules_leave_is_mapped_by_a_model_that_cannot_invent(installation: Installation) -> None:
    helper = Helper(
        ("metrics.accuracy", "/Kennzahlen/Trefferquote"),
        ("metrics.latency", "/Kennzahlen/Laufzeit"),
        ("charts.error_by_epoch", "/Verlauf"),
        ("metrics.auc", "/Kennzahlen/Erfunden"),
        ("name", "/zustaendig"),
    )
    async with served(helper) as port:
        gateway = {"gateway_url": f"http://127.0.0.1:{port}", "gateway_key": "mm-key"}
        async with registry(installation, mapping_group="mapper", **gateway) as it:
            proposal = await proposed(it, foreign("prognose"))
            by = {one["field"]: one["by"] for one in proposal["fields"]}
            assert by["metrics.accuracy"] == "model" and by["inputs.alter"] == "rule"
            assert values(proposal)["metrics.accuracy"] == 0.912 and values(proposal)["metrics.latency_ms"] == 800.0
            assert "metrics.auc" not in by and values(proposal)["name"] == "Schadenprognose"
            assert any("nothing at" in note for note in proposal["notes"])
            assert helper.asked[0]["model"] == "mapper" and helper.keys == [b"Bearer mm-key"]
            assert "Kennzahlen" in helper.asked[0]["messages"][1]["content"]

            beside = await version(it, await accepted(it, proposal), "/imports")
            assert beside["charts"]["error_by_epoch"]["x"]["values"] == [1, 2, 3]
            assert beside["extra"] == {"/zustaendig": "Abt. 7"}

            without = await proposed(it, foreign("prognose"), ask="false")
            assert "/Kennzahlen" in without["unmapped"] and len(helper.asked) == 1


async def test_corrections_are_kept_under_a_name_and_applied_to_the_next(installation: Installation) -> None:
    async with registry(installation, mapping_group="gone", gateway_url="http://127.0.0.1:9") as it:
        proposal = await proposed(it, foreign("prognose"))
        assert any("did not answer" in note for note in proposal["notes"])
        place = f"{FOREIGN}/{proposal['proposal_id']}"
        corrections = [
            {"field": "metrics.accuracy", "source": "/Kennzahlen/Trefferquote"},
            {"field": "task", "value": "regression"},
        ]
        answer = await it.client.patch(place, json={"fields": corrections})
        assert answer.status_code == 200 and values(answer.json())["metrics.accuracy"] == 0.912
        for wrong in (
            {"field": "metrics.x", "source": "/zustaendig"},
            {"field": "metrics.x", "source": "/nowhere"},
            {"field": "no.such", "value": 1},
            {"field": "kind", "value": "dataset"},
        ):
            answer = await it.client.patch(place, json={"fields": [wrong]})
            assert answer.status_code == 422, answer.text
        became = await accepted(it, proposal, keep_as="claims")
        assert (await version(it, became))["content"]["task"] == "regression"
        assert (await it.client.post(f"{place}:accept")).json()["code"] == "already-accepted"
        assert (await it.client.patch(place, json={"fields": corrections})).status_code == 409

        other = foreign("prognose").replace(b"91,2 %", b"85 %").replace(b"Schadenprognose", b"Zweite")
        second = await proposed(it, other)
        assert second["mapping"] == "claims" and values(second)["metrics.accuracy"] == 0.85
        assert values(second)["task"] == "regression"
        (kept,) = (await it.client.get("/registry/v1/mappings")).json()
        assert {rule["field"] for rule in kept["rules"]} == {"metrics.accuracy", "task"}
        assert (await it.client.delete("/registry/v1/mappings/claims")).status_code == 204
        assert (await it.client.get("/registry/v1/mappings/claims")).status_code == 404
        assert (await proposed(it, other))["mapping"] is None
        assert (await it.client.post(FOREIGN, content=other, params={"mapping": "claims"})).status_code == 404
        first = (await it.client.get(f"{FOREIGN}?page_size=1")).json()
        rest = (await it.client.get(f"{FOREIGN}?page_token={first['next_page_token']}")).json()
        assert len(rest["items"]) == 2


async def test_a_model_with_its_bytes_goes_the_road_of_every_submission(installation: Installation) -> None:
    outsider = installation.key("user:eve", "owner", workspace="other")
    async with registry(installation) as it:
        data = model_bytes()
        described = {"name": "with-bytes", "sha256": sha256(data).removeprefix("sha256:"), "model_format": "lightgbm"}
        proposal = await proposed(it, json.dumps(described).encode())
        refused = await it.client.post(f"{FOREIGN}/{proposal['proposal_id']}:accept")
        assert refused.status_code == 422 and refused.json()["code"] == "artefact-missing"
        await it.upload(data)
        found = await version(it, await accepted(it, proposal))
        assert found["content"]["artefact"]["digest"] == sha256(data)

        nameless = await proposed(it, b'{"metrics": {"auc": 0.9}}')
        answer = await it.client.post(f"{FOREIGN}/{nameless['proposal_id']}:accept")
        assert answer.status_code == 422 and answer.json()["code"] == "not-named"
        async with installation.client("registry", outsider) as other:
            place = f"{FOREIGN}/{nameless['proposal_id']}"
            assert (await other.get(place)).status_code == 404
            assert (await other.patch(place, json={"fields": [{"field": "name", "value": "x"}]})).status_code == 404
            assert (await other.post(f"{place}:accept")).status_code == 404
            assert (await other.get(FOREIGN)).json()["items"] == []
        await refuses_what_is_no_document(it.client)


async def refuses_what_is_no_document(client: httpx.AsyncClient) -> None:
    keys = json.dumps({f"k{number}": 1 for number in range(150_000)}).encode()
    deep = b'{"a":' * 100 + b"1" + b"}" * 100
    large = b'{"a":"' + b"x" * 5_000_000 + b'"}'
    for body, status in ((b"nope", 400), (b'{"a":NaN}', 400), (deep, 400), (b"[]", 422), (keys, 422), (large, 413)):
        assert (await client.post(FOREIGN, content=body)).status_code == status
    assert (await client.get(f"{FOREIGN}/{uuid4()}")).status_code == 404
