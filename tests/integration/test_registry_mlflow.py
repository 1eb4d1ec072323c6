"""MLflow's routes with input that no client of its own would send; other workspaces; many who do the same at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from google.protobuf import json_format, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st
from registry_story import Registry, registry

from services.registry.domain.assets import Source, sourced_content, sourced_digest
from services.registry.mlflow import app, packaged, shapes
from shared.events.registry import AssetRegistered
from shared.ids import digest_of
from shared.testing.declared import built
from shared.testing.installation import Installation, eventually
from tests.faults import hostile

pytestmark = pytest.mark.timeout(180)
MLFLOW = "/registry/api/2.0/mlflow"
FILES = "/registry/api/2.0/mlflow-artifacts/artifacts"


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    return await client.post(f"{MLFLOW}/{path}", json=body)


async def filled(it: Registry) -> dict[str, str]:
    """Something of everything in the workspace, by the names of the fields that say which."""
    assert (await post(it.client, "registered-models/create", name="credit")).status_code == 200
    for _ in range(2):
        made = await post(it.client, "model-versions/create", name="credit", source="s3://b/x", tags=[])
        assert made.status_code == 200, made.text
    await post(it.client, "registered-models/alias", name="credit", alias="best", version="1")
    experiment = (await post(it.client, "experiments/create", name="trees")).json()["experiment_id"]
    run = (await post(it.client, "runs/create", experiment_id=experiment, run_name="one")).json()["run"]["info"][
        "run_id"
    ]
    model = (await post(it.client, "logged-models", experiment_id=experiment, name="net")).json()["model"]["info"]
    await it.client.put(f"{FILES}/{experiment}/{run}/artifacts/a.txt", content=b"mine")
    return {"experiment_id": experiment, "run_id": run, "model_id": model["model_id"]}


def routes() -> list[tuple[str, str]]:
    """Every route of MLflow's API that is there."""
    compatible = next(one for path, one in built("registry").apart if path == app.PATHS[0])
    table = compatible._routes  # type: ignore[attr-defined]
    return [*table.exact, *((method, "/".join(shape)) for method, shape, _ in table.shaped)]


async def test_nothing_of_another_workspace_is_seen_or_changed(installation: Installation) -> None:
    other = installation.key("user:eve", "owner", workspace="other")
    async with registry(installation) as it:
        known = await filled(it)
        named = {
            **known, "name": "credit", "version": "1", "alias": "best", "key": "k", "value": "v", "new_name": "mine",
            "stage": "Production", "metric_key": "auc", "timestamp": 1, "source": "s3://b/y", "status": "FINISHED",
            "models": [{"model_id": known["model_id"]}], "tag_key": "k", "model_json": "{}", "max_results": 10,
            "experiment_ids": [known["experiment_id"]], "experiment_name": "trees",
        }  # fmt: skip
        asked = 0
        async with installation.client("registry", other) as stranger:
            for method, path in routes():
                if path in ("registered-models/create", "experiments/create", "server-info"):
                    continue
                if path == "runs/log-metric":
                    named["value"] = 1.0  # type: ignore[assignment]
                url = f"{MLFLOW}/" + path.format_map(named)
                answer = await stranger.request(
                    method, url, **({"params": named} if method == "GET" else {"json": named})
                )
                asked += 1
                seen = answer.status_code == 200 and answer.json() not in ({}, {"metrics": []})
                mine = seen and not all("Default" in json.dumps(one) for one in answer.json().get("experiments", [{}]))
                assert not mine, (method, path, answer.text[:300])
                assert answer.status_code < 500, (method, path, answer.text[:300])
            path = f"{FILES}/{known['experiment_id']}/{known['run_id']}/artifacts/a.txt"
            assert (await stranger.get(path)).status_code == 404
            assert (await stranger.get(FILES, params={"path": known["experiment_id"]})).json() == {}
            await stranger.put(path, content=b"theirs")
            await stranger.delete(path)
        assert asked > 45
        assert (await it.client.get(path)).content == b"mine"
        found = (await it.client.get(f"{MLFLOW}/registered-models/get?name=credit")).json()["registered_model"]
        assert found["latest_versions"][0]["version"] == "2" and "tags" not in found
        foreign = await it.client.get(
            f"{MLFLOW}/registered-models/get?name=credit", headers={"x-mlflow-workspace": "o"}
        )
        assert foreign.status_code == 404
        own = await it.client.get(path, headers={"x-mlflow-workspace": "default"})
        assert own.status_code == 200


async def test_no_body_surprises_a_route(installation: Installation) -> None:
    async with registry(installation) as it:
        known = await filled(it)
        point = {"key": "a", "value": 1.0, "timestamp": 1, "step": 0}
        body = {**known, "name": "credit", "version": "1", "key": "k", "value": "v", "source": "s3://b/x",
                "tags": [{"key": "a", "value": "b"}], "metrics": [point]}  # fmt: skip
        raw = [b"", b"{", b"null", b"[]", b"3", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 10_000, b"\xff\xfe", b"\x00"]
        bodies = raw + [json.dumps(one).encode() for one in hostile.changes(body)]
        for method, path in routes():
            if method == "GET" or "delete" in path or "{" in path:
                continue
            for content in bodies[:: 1 if path == "model-versions/create" else 17]:
                answer = await it.client.request(method, f"{MLFLOW}/{path}", content=content)
                assert answer.status_code < 500, (path, content[:200], answer.text[:300])
                if answer.status_code != 200:
                    assert answer.json()["error_code"] and answer.json()["message"], (path, content[:200])


async def test_a_million_names_are_refused_before_they_are_read(installation: Installation) -> None:
    async with registry(installation) as it:
        body = b"{" + b",".join(b'"%d":1' % number for number in range(900_000)) + b"}"
        began = asyncio.get_running_loop().time()
        answer = await it.client.post(f"{MLFLOW}/registered-models/create", content=body)
        assert answer.status_code in (400, 413), answer.text[:200]
        assert asyncio.get_running_loop().time() - began < 30
        unknown = await it.client.get("/registry/api/2.0/mlflow/no/such/route")
        assert (unknown.status_code, unknown.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
        async with installation.client("registry") as nobody:
            answer = await nobody.get(f"{MLFLOW}/registered-models/get?name=x")
            assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")


async def test_paths_that_lead_elsewhere_keep_nothing(installation: Installation) -> None:
    async with registry(installation) as it:
        for path in ("a/%2e%2e/x", "a/%252e%252e/x", "a/%2e/b", "a//b", "a\\..\\b", "a/", "/etc/passwd"):
            answer = await it.client.put(f"{FILES}/{path}", content=b"x")
            assert answer.status_code in (400, 404), (path, answer.text)
        assert (await it.client.get(FILES)).json() == {}


async def test_many_register_at_once_and_every_version_is_told_and_found(installation: Installation) -> None:
    async with registry(installation) as it:
        await filled(it)

        async def one(number: int) -> int:
            tags = [{"key": "round", "value": str(number)}]
            answer = await post(it.client, "model-versions/create", name="credit", source="s3://b/x", tags=tags)
            return int(answer.json()["model_version"]["version"])

        made = await asyncio.gather(*(one(number) for number in range(20)))
        assert sorted(made) == list(range(3, 23))
        said = await eventually(lambda: installation.events(AssetRegistered), lambda seen: len(seen) == 22)
        assert sorted(event.asset.version for event in said) == list(range(1, 23))
        found = (await it.client.get("/registry/v1/assets/model/credit/versions/7")).json()
        told = next(event for event in said if event.asset.version == 7)
        assert found["digest"] == told.asset.digest == digest_of(found["content"])

        async def search() -> list[int]:
            answer = await it.client.get("/registry/v1/search", params={"filter": "tags.round = '11'"})
            return [item["version"] for item in answer.json()["items"]]

        assert await eventually(search, bool) == [made[11]]
        creates = [post(it.client, "registered-models/create", name="same") for _ in range(8)]
        codes = sorted(answer.status_code for answer in await asyncio.gather(*creates))
        assert codes == [200] + [400] * 7


async def test_a_version_whose_event_no_record_holds_is_refused_and_holds_up_nobody(installation: Installation) -> None:
    async with registry(installation) as it:
        await filled(it)
        tags = [{"key": f"k{number}", "value": "x" * 100_000} for number in range(12)]
        refused = await post(it.client, "model-versions/create", name="credit", source="s3://b/x", tags=tags)
        assert refused.status_code == 400 and "is the most" in refused.json()["message"], refused.text[:300]
        assert (await post(it.client, "model-versions/create", name="credit", source="s3://b/y")).status_code == 200
        await installation.wait_for(AssetRegistered, lambda one: one.asset.version == 3)


async def test_a_reader_may_load_a_prompt_and_change_nothing(installation: Installation) -> None:
    reader = installation.key("user:rea", "viewer")
    async with registry(installation) as it:
        tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
        await post(it.client, "registered-models/create", name="greet", tags=tags)
        async with installation.client("registry", reader) as client:
            written = await post(
                client, "registered-models/set-tag", name="greet", key="_mlflow_experiment_ids", value="1"
            )
            assert written.status_code == 200
            refused = await post(client, "registered-models/set-tag", name="greet", key="team", value="x")
            assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")
        found = (await it.client.get(f"{MLFLOW}/registered-models/get?name=greet")).json()["registered_model"]
        assert found["tags"] == tags
        assert (await it.client.get("/registry/v1/assets/prompt/greet")).status_code == 200


async def test_runs_are_found_by_any_of_their_datasets_and_a_history_is_of_some_length(
    installation: Installation,
) -> None:
    async with registry(installation) as it:
        known = await filled(it)
        datasets = [
            {
                "tags": [{"key": "mlflow.data.context", "value": context}],
                "dataset": {"name": name, "digest": "d", "source_type": "local", "source": "s"},
            }
            for name, context in (("first", "training"), ("second", "testing"))
        ]
        logged = await post(it.client, "runs/log-inputs", run_id=known["run_id"], datasets=datasets)
        assert logged.status_code == 200, logged.text

        async def found(text: str) -> int:
            answer = await post(
                it.client, "runs/search", experiment_ids=[known["experiment_id"]], filter=text, order_by=[]
            )
            assert answer.status_code == 200, answer.text
            return len(answer.json().get("runs", []))

        for text in ("dataset.name = 'second'", "dataset.context = 'testing'", "dataset.name != 'first'"):
            assert await found(text) == 1, text
        assert await found("dataset.name = 'third'") == 0
        for route in ("get-history", "get-history-bulk", "get-history-bulk-interval"):
            for most in (-1, 0):
                asked = {"run_id": known["run_id"], "metric_key": "auc", "max_results": most}
                answer = await it.client.get(f"{MLFLOW}/metrics/{route}", params=asked)
                assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), route


async def test_a_logged_model_is_found_however_many_came_after_it(installation: Installation) -> None:
    async with registry(installation) as it:
        known = await filled(it)
        experiment = known["experiment_id"]
        db = await asyncpg.connect(
            installation.dsn("registry"), server_settings={"search_path": "registry", "mintmark.workspace": "default"}
        )
        await db.execute(
            "INSERT INTO logged_model (workspace, model_id, experiment, name, model_type, source_run_id, status, tags, "
            "params, created_at, updated_at) SELECT 'default', 'm-' || lpad(n::text, 32, '0'), $1, 'other', '', '', 1, "
            # three at a time have the same moment, so that no page may end at a moment
            "'{}', jsonb_build_object('depth', n::text), now() + n / 3 * interval '1 s', now() "
            "FROM generate_series(1, 5500) n",
            int(experiment),
        )
        await db.close()

        async def search(**asked: Any) -> dict[str, Any]:
            answer = await post(it.client, "logged-models/search", experiment_ids=[experiment], **asked)
            assert answer.status_code == 200, answer.text
            return answer.json()

        def ids(found: dict[str, Any]) -> list[str]:
            return [one["info"]["model_id"] for one in found["models"]]

        assert ids(await search(filter="name = 'net'")) == [known["model_id"]]
        oldest = [{"field_name": "creation_timestamp", "ascending": True}]
        assert ids(await search(order_by=oldest, max_results=1)) == [known["model_id"]]

        seen: list[str] = []
        page: dict[str, Any] = {}
        while not seen or "next_page_token" in page:
            page = await search(max_results=1000, page_token=page.get("next_page_token", ""))
            seen += ids(page)
        assert len(seen) == len(set(seen)) == 5501 and seen[-1] == known["model_id"]


async def test_no_path_of_the_servers_disk_is_a_source_whatever_model_is_named(installation: Installation) -> None:
    async with registry(installation) as it:
        model = (await filled(it))["model_id"]
        for source in (
            "/etc/passwd", "etc/passwd", "file:///etc/passwd", "FILE:/etc/passwd", "file://localhost/etc/passwd",
            " file:///etc/passwd", "c:\\windows", f"/mlflow-artifacts/1/models/{model}/artifacts",
        ):  # fmt: skip
            for named in ({"model_id": model}, {}):
                answer = await post(it.client, "model-versions/create", name="credit", source=source, **named)
                assert answer.status_code == 400, (source, named, answer.text)
                assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
        made = await post(it.client, "model-versions/create", name="credit", source=f"models:/{model}", model_id=model)
        assert made.json()["model_version"]["version"] == "3", made.text


@pytest.mark.parametrize("value", [1.5, float("inf"), float("-inf"), float("nan")])
def test_a_number_is_read_by_protobuf_as_it_is(value: float) -> None:
    shown = json.loads(json.dumps(shapes.number_shown(value), allow_nan=False))
    read = json_format.ParseDict(shown, wrappers_pb2.DoubleValue()).value
    assert read == value or (read != read and value != value)


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@given(TEXTS, TEXTS, st.none() | TEXTS)
def test_the_quick_digest_is_the_canonical_one(uri: str, run_id: str, link: str | None) -> None:
    content = sourced_content("mm:model/x", Source(uri, uuid4(), run_link=link), run_id=run_id)
    assert sourced_digest(content) == digest_of(content)


def test_what_a_folder_says_of_its_model_is_read_as_far_as_it_can_be() -> None:
    said = {
        "inputs": json.dumps([{"type": "double", "name": "age"}, {"type": "string", "name": "sex", "required": False}])
    }
    folder = {"flavors": {"lightgbm": {"data": "model.lgb"}}, "signature": said}
    found = packaged.read(json.dumps(folder).encode())
    assert found is not None and (found.file, found.form) == ("model.lgb", "lightgbm")
    assert [(tensor.name, tensor.datatype, tensor.nullable) for tensor in found.signature.inputs] == [
        ("age", "FP64", False),
        ("sex", "BYTES", True),
    ]
    for bad in (
        b"",
        b"- 1",
        b"a: &a [*a]",
        b"flavors: 3",
        b"!!python/object:os.system x",
        b"flavors: {lightgbm: {data: ../x}}",
        *(b"flavors: {lightgbm: {data: x, a: !!%s}}" % bad for bad in (b"bool foo", b"int ''", b"timestamp foo")),
        b"flavors: {lightgbm: {data: x, a: " + b"[" * 40 + b"]" * 40 + b"}}",
        b"flavors: {lightgbm: {data: x}}\na: [" + b"1," * 30_000 + b"]",
    ):
        assert packaged.read(bad) is None, bad
