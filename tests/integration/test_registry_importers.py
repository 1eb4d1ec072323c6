"""Folders, model cards, SageMaker and Langfuse imported; what is in the way is named and left alone."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import boto3
import pytest
from guide import blocks, run, served
from importers_story import Catalog, catalog
from mintmark.client import Client, Problem
from mintmark.importers import running
from mintmark.importers.folder import Folder
from mintmark.importers.found import FoundTrial, Trials
from mintmark.importers.huggingface import HuggingFace
from mintmark.importers.langfuse import Langfuse
from mintmark.importers.running import Row, Running, Summary
from mintmark.importers.sagemaker import SageMaker
from mintmark.settings import Connection
from moto.server import ThreadedMotoServer
from registry_story import a_model, model_bytes
from test_registry_protection import protect

from shared.events.registry import AssetRegistered
from shared.events.upstream import RunCompleted
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
MODEL = "/assets/model/credit"


def a_file(folder: Path, name: str, number: int, sidecar: str = "") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.lgb").write_bytes(model_bytes(number))
    (folder / f"{name}.yaml").write_text(sidecar) if sidecar else None


def rows(summary: Summary) -> dict[tuple[str, int | None], Row]:
    named = {(row.title, row.version): row for row in summary.rows if row.version or row.id.startswith("asset:")}
    return {(row.id, None): row for row in summary.rows} | named


def counted(summary: Summary) -> tuple[dict[str, int], dict[str, int]]:
    return dict(summary.assets), dict(summary.versions)


async def test_who_changed_what_since_they_last_agreed(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    a_file(folder, "a", 1, "name: credit\nversion: 1\ndescription: first\ntags: {team: labour, of: source}\n")
    third = "name: credit\nversion: 3\naliases: [champion]\nstage: production\nregistered_at: 2024-05-01T10:00:00Z\n"
    a_file(folder, "b", 3, third + "author: grace\nlicence: MIT\nmetrics: {auc: 0.9}\nbase_model: Org/Base\n")
    async with catalog(installation) as it:
        assert counted(await it.import_(lambda: Folder(folder))) == ({"created": 1}, {"created": 2})
        found = await it.get(f"{MODEL}/versions/3")
        assert found["author"] == {"id": "imported:folder/grace", "proven": False}
        assert found["registered_at"] == "2024-05-01T10:00:00Z" and found["metrics"] == {"auc": 0.9}
        assert (found["stage"], found["aliases"]) == ("production", ["champion"])
        moved = (await it.get(f"{MODEL}/versions/3/stage/history"))["items"]
        assert [move["at"] for move in moved] == ["2024-05-01T10:00:00Z"]
        (base,) = found["content"]["training"]["base"]
        above = await it.get("/lineage", node="mm:model/credit@3", direction="ascendants")
        assert base in {node["id"] for node in above["nodes"]}
        for number in (1, 3):
            event = await installation.wait_for(AssetRegistered, lambda one, number=number: one.asset.version == number)
            assert event.artefact.digest == sha256(model_bytes(number))

        # We change one tag; the source changes another, and the description, which we change as well.
        etag = (await it.registry.client.get(f"/registry/v1{MODEL}/versions/1")).headers["etag"]
        change = {"description": "ours", "tags": {"team": "risk"}}
        answer = await it.registry.client.patch(
            f"/registry/v1{MODEL}/versions/1", json=change, headers={"if-match": etag}
        )
        assert answer.status_code == 200
        a_file(folder, "a", 1, "name: credit\nversion: 1\ndescription: theirs\ntags: {team: labour, of: them}\n")
        for dry in (True, False):
            row = rows(await it.import_(lambda: Folder(folder), dry_run=dry))["credit", 1]
            assert row.outcome == "changed" and row.in_the_way
            assert {(one["field"], one["after"], bool(one["why_not"])) for one in row.differences} == {
                ("description", "theirs", True), ("tag:of", "them", False),
            }  # fmt: skip
        found = await it.get(f"{MODEL}/versions/1")
        assert (found["description"], found["tags"]) == ("ours", {"team": "risk", "of": "them"})

        # Other bytes under a number that is taken: named, never put in its place.
        a_file(folder, "b", 4, third)
        row = rows(await it.import_(lambda: Folder(folder)))["credit", 3]
        assert row.outcome == "conflict" and "content is another" in row.reason
        assert (await it.get(f"{MODEL}/versions/3"))["content"]["artefact"]["digest"] == sha256(model_bytes(3))


async def test_what_stands_here_is_left_alone(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    publisher = installation.key("user:pub", "publisher")
    async with catalog(installation) as it:
        for number in (1, 2):
            await it.registry.upload(model_bytes(number))
            await it.registry.register(a_model("credit", model_bytes(number)))
        a_file(folder, "same", 1, "name: credit\nversion: 1\naliases: [agreed]\n")
        a_file(folder, "other", 20, "name: credit\nversion: 2\naliases: [champion]\n")
        a_file(folder, "new", 3, "name: credit\nversion: 3\n")
        a_file(folder, "twin", 2, "name: credit\nversion: 9\n")
        a_file(folder, "free", 5, "name: credit\n")
        with pytest.raises(Problem, match="may not configure"):
            await it.import_(lambda: Folder(folder), key=publisher)
        shown = await it.import_(lambda: Folder(folder), dry_run=True)
        done = await it.import_(lambda: Folder(folder))
        for found in (shown, done):
            named = rows(found)
            assert found.versions == Counter(created=2, changed=1, conflict=2), named
            assert [one["field"] for one in named["credit", 1].differences] == ["source"]
            assert "other content" in named["credit", 2].reason
            assert "same content" in named["credit", 9].reason
            assert {one["field"]: bool(one["why_not"]) for one in named["credit", None].differences} == {
                "alias:agreed": False, "alias:champion": True,
            }  # fmt: skip
        asset = await it.get(MODEL)
        assert {move["alias"]: move["after"] for move in asset["aliases"]} == {"agreed": 1}
        assert [one["version"] for one in (await it.get(f"{MODEL}/versions"))["items"]] == [4, 3, 2, 1]
        again = await it.import_(lambda: Folder(folder))
        assert again.changes == 0 and again.versions == Counter(same=3, conflict=2)


async def test_protected_pointers_stay_protected(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    a_file(folder, "a", 1, "name: credit\nversion: 1\naliases: [champion, free]\nstage: production\n")
    async with catalog(installation) as it:
        await protect(installation, it.registry, 1, aliases=["champion"], stages=["production"])
        for dry in (True, False, False):
            named = rows(await it.import_(lambda: Folder(folder), dry_run=dry))
            for row, field in ((named["credit", 1], "stage"), (named["credit", None], "alias:champion")):
                assert any(one["field"] == field and "protected" in one["why_not"] for one in row.differences), row
        found = await it.get(f"{MODEL}/versions/1")
        assert (found["stage"], found["aliases"]) == ("development", ["free"])


async def test_an_alias_of_a_version_that_was_refused_is_named_and_the_rest_comes_in(
    installation: Installation, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    a_file(folder, "a", 1, "name: credit\nversion: 1\naliases: [champion]\n")
    (folder / "b.skops").write_bytes(b"PK\x03\x04 no archive")
    (folder / "b.yaml").write_text("name: credit\nversion: 2\naliases: [challenger]\n")
    a_file(folder, "z", 3, "name: last\nversion: 1\n")
    async with catalog(installation) as it:
        done = await it.import_(lambda: Folder(folder))
        assert done.versions == Counter(created=2, refused=1), rows(done)
        why_not = {one["field"]: one["why_not"] for one in rows(done)["credit", None].differences}
        assert why_not == {"alias:champion": None, "alias:challenger": "version 2 is not here"}
        asset = await it.get(MODEL)
        assert {move["alias"]: move["after"] for move in asset["aliases"]} == {"champion": 1}


async def test_names_and_bytes_of_all_kinds(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    names = ["team/credit", "Credit", "credit", "☃", "n" * 300, "n" * 501]
    for number, name in enumerate(names):
        a_file(folder, f"f{number}", number, f'name: "{name}"\nversion: 1\n')
    (folder / "trojan.skops").write_bytes(b"PK\x03\x04 no archive")
    (folder / "weights.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    async with catalog(installation) as it:
        done = await it.import_(lambda: Folder(folder))
        assert done.versions == Counter(created=6, refused=2), rows(done)
        (trojan,) = (row for row in done.rows if row.title == "trojan" and row.outcome == "refused")
        assert "has no end" in trojan.reason
        titles = {one["title"] for one in (await it.get("/search"))["items"]}
        assert titles == {*names[:5], "weights"}
        assert (await it.import_(lambda: Folder(folder))).changes == 0


async def test_an_import_that_was_killed_goes_on(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for number in range(120):
        a_file(folder, f"m{number:03}", number, "version: 2\naliases: [champion]\nstage: staging\n")
    async with catalog(installation) as it:
        cli = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mintmark.cli.main", "import", "folder", str(folder), "--json",
            env={**os.environ, "MINTMARK_URL": it.url, "MINTMARK_API_KEY": it.key},
        )  # fmt: skip

        async def here() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = (await it.get("/search", page_size=500))["items"]
            return items

        await eventually(here, bool, what="the first version")
        cli.kill()
        await cli.wait()
        cut = await here()  # the server goes on with the few that it was sent by then
        assert 0 < len(cut) < 120
        assert {(one["version"], one["stage"]) for one in cut} == {(2, "staging")}  # nothing is here by halves
        done = (await it.bring("folder", str(folder)))["versions"]
        assert done["created"] + done["same"] == 120 and len(cut) <= done["same"] < 120
        found = await here()
        assert len(found) == 120 and {tuple(one["aliases"]) for one in found} == {("champion",)}


async def test_a_model_card_with_its_files(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "sentiment"
    folder.mkdir()
    card = "---\nlicense: apache-2.0\nbase_model: org/base\ndatasets: [imdb]\ntags: [{}]\nmodel-index:\n- name: org/s\n"
    card += "  results:\n  - dataset: {{type: glue}}\n    metrics: [{{type: acc, value: 0.9}}]\n---\n# It\n"
    (folder / "README.md").write_text(card.format("old"))
    (folder / "model.onnx").write_bytes(b"\x08\x07\x12\x00")
    (folder / "config.json").write_text("{}")
    async with catalog(installation) as it:
        done = await it.bring("huggingface", str(folder), "--name", "org/sentiment")
        assert done["versions"] == {"created": 1}
        found = (await it.get("/search", name="org/sentiment"))["items"][0]
        assert found["content"]["licence"] == "apache-2.0" and found["metrics"] == {"glue/acc": 0.9}
        assert found["content"]["artefact"]["format"] == "onnx" and found["tags"] == {"old": "true"}
        paths = {file["path"]: file["digest"] for file in found["content"]["source"]["files"]}
        assert paths == {"config.json": sha256(b"{}"), "model.onnx": sha256(b"\x08\x07\x12\x00")}
        bytes_here = await it.registry.client.get(f"/registry/v1/artefacts/{paths['config.json']}")
        assert bytes_here.content == b"{}"

        (folder / "README.md").write_text(card.format("new"))  # said otherwise: the same version
        changed = await it.import_(lambda: HuggingFace(folder, title="org/sentiment"))
        assert changed.versions == Counter(changed=1)
        (folder / "config.json").write_text("{ }")  # other bytes: another version
        assert (await it.import_(lambda: HuggingFace(folder, title="org/sentiment"))).versions == Counter(created=1)
        path = "/assets/" + found["urn"].removeprefix("mm:")
        found = (await it.get(f"{path}/versions"))["items"]
        assert [(one["version"], one["tags"]) for one in found] == [(2, {"new": "true"}), (1, {"new": "true"})]


async def test_a_sagemaker_registry(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "t"),
        ("AWS_SECRET_ACCESS_KEY", "t"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
    ):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        api = boto3.client("sagemaker", endpoint_url=endpoint)
        api.create_model_package_group(
            ModelPackageGroupName="Churn",
            ModelPackageGroupDescription="who leaves",
            Tags=[{"Key": "team", "Value": "crm"}],
        )
        for number in (1, 2, 3):
            api.create_model_package(
                ModelPackageGroupName="Churn",
                ModelPackageDescription=f"number {number}",
                ModelApprovalStatus="Approved" if number == 2 else "PendingManualApproval",
                InferenceSpecification={
                    "Containers": [{"Image": "img", "ModelDataUrl": f"s3://b/{number}.tar.gz"}],
                    "SupportedContentTypes": ["text/csv"],
                    "SupportedResponseMIMETypes": ["text/csv"],
                },
                ModelMetrics={"ModelQuality": {"Statistics": {"ContentType": "json", "S3Uri": "s3://b/q.json"}}},
                CustomerMetadataProperties={"owner": "ada"},
            )
        async with catalog(installation) as it:
            done = await it.bring("sagemaker", "--endpoint-url", endpoint)
            assert done["assets"] == {"created": 1} and done["versions"] == {"created": 3}, done
            found = (await it.get("/search", name="Churn"))["items"]
            assert {one["version"]: one["description"] for one in found} == {
                number: f"number {number}" for number in (1, 2, 3)
            }
            two = next(one for one in found if one["version"] == 2)
            assert two["content"]["source"]["uri"] == "s3://b/2.tar.gz" and two["stage"] == "development"
            assert two["tags"]["sagemaker.approval-status"] == "Approved" and two["tags"]["owner"] == "ada"
            assert two["tags"]["sagemaker.ModelQuality.Statistics"] == "s3://b/q.json"
            arn = api.list_model_packages(ModelPackageGroupName="Churn")["ModelPackageSummaryList"]
            times = {one["ModelPackageVersion"]: one["CreationTime"].timestamp() for one in arn}
            assert {one["version"]: round(_seconds(one["registered_at"]), 3) for one in found} == {
                number: round(at, 3) for number, at in times.items()
            }
            third = next(one["ModelPackageArn"] for one in arn if one["ModelPackageVersion"] == 3)
            api.update_model_package(ModelPackageArn=third, ModelApprovalStatus="Rejected")
            again = await it.import_(lambda: SageMaker(endpoint=endpoint))
            assert again.versions == Counter(same=2, changed=1), rows(again)
    finally:
        server.stop()


def _seconds(at: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(at).timestamp()


async def test_langfuse_prompts_keep_numbers_labels_and_times(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source speaks Langfuse's API: the prompts of another workspace of ours do."""
    theirs = installation.key("user:bob", "owner", workspace="theirs")
    key = installation.key("user:ops", "operator")
    await installation.start("prompts")
    async with installation.client("prompts", theirs) as source, installation.client("prompts", key) as target:

        async def create(name: str, prompt: Any, **more: Any) -> None:
            kind = "text" if isinstance(prompt, str) else "chat"
            body = {"name": name, "prompt": prompt, "type": kind, **more}
            answer = await source.post("/prompts/api/public/v2/prompts", json=body)
            assert answer.status_code == 201, answer.text

        await create("tone", "Be kind, {{name}}.", labels=["production"], commitMessage="first")
        await create("a/greet", "@@@langfusePrompt:name=tone|label=production@@@ Hi", config={"t": 0.1}, tags=["x"])
        await create("a/greet", [{"role": "user", "content": "Hi {{name}}"}], labels=["production", "v.2"])
        await create("tone", "Be brief, {{name}}.")
        monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", theirs.rpartition("_")[0])
        monkeypatch.setenv("LANGFUSE_SECRET_KEY", theirs)
        async with served(installation, "prompts") as url:
            it = Catalog(None, url, key)  # type: ignore[arg-type]
            assert counted(await it.import_(lambda: Langfuse(f"{url}/prompts"), dry_run=True)) == (
                {"created": 2}, {"created": 4},
            )  # fmt: skip
            assert counted(await it.import_(lambda: Langfuse(f"{url}/prompts"))) == ({"created": 2}, {"created": 4})
            for name, number in (("tone", 1), ("tone", 2), ("a/greet", 1), ("a/greet", 2)):
                path = f"/prompts/api/public/v2/prompts/{name}?version={number}&resolve=false"
                their, our = (await source.get(path)).json(), (await target.get(path)).json()
                same = ("name", "version", "type", "prompt", "config", "labels", "tags", "commitMessage", "createdAt")
                assert {field: our[field] for field in same} == {field: their[field] for field in same}
                assert our["createdBy"] == "imported:langfuse/user:bob"
            again = await it.import_(lambda: Langfuse(f"{url}/prompts"))
            assert again.changes == 0 and again.in_the_way == 0, rows(again)

            # The source moves a label, and goes on to a third version.
            ada = installation.client("prompts", key)
            async with ada:
                moved = await source.patch(
                    "/prompts/api/public/v2/prompts/tone/versions/2", json={"newLabels": ["production"]}
                )
                assert moved.status_code == 200, moved.text
            await create("tone", "Be warm, {{name}}.", labels=["fresh"])
            found = await it.import_(lambda: Langfuse(f"{url}/prompts"))
            assert found.versions == Counter(created=1, same=4) and found.in_the_way == 0, rows(found)
            labels = {
                one["label"]: one["after"] for one in (await target.get("/prompts/v1/prompts/tone/labels")).json()
            }
            assert labels == {"production": 2, "fresh": 3}


async def test_a_long_run_comes_in_parts_and_ends_once(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MOST_POINTS", 10)
    points = [{"key": "loss", "value": 1 / (step + 1), "timestamp_ms": 1000 + step, "step": step} for step in range(25)]
    nan = {"key": "bad", "value": "NaN", "timestamp_ms": 1}
    run = {"id": "0" * 32, "name": "night", "status": "FINISHED", "started_ms": 1000, "ended_ms": 9000}
    experiment = {"name": "Credit"}

    def found(**more: Any) -> Iterator[Trials]:
        document = {**run, "metrics": points[-1:], **more}
        yield Trials(experiment, [FoundTrial(document, lambda upload: {"metrics": [*points, nan]})], [])

    async with catalog(installation) as it:

        def bring(trials: Iterator[Trials]) -> Summary:
            with Client(Connection(url=it.url, api_key=it.key)) as client:
                reader = Folder(Path(), name="runs")  # whose name alone is asked for
                return Running(client, reader, dry_run=False).run_trials(trials)

        # The first part of an import that was cut off there.
        body = {"source": {"kind": "folder", "name": "runs"}, "experiment": experiment}
        part = {**run, "status": "RUNNING", "ended_ms": None, "metrics": points[:10]}
        it.registry.client.headers["authorization"] = f"Bearer {it.key}"
        answer = await it.registry.client.post("/registry/v1/imports/runs", json={**body, "runs": [part]})
        assert [item["outcome"] for item in answer.json()["items"]] == ["created"]
        assert (await asyncio.to_thread(bring, found())).trials == Counter(changed=1)
        assert (await asyncio.to_thread(bring, found())).trials == Counter(same=1)
        (said,) = [await installation.wait_for(RunCompleted)]
        assert (said.run_id, said.status, said.metrics) == (run["id"], "finished", {"loss": 1 / 25})
        assert len(await installation.events(RunCompleted)) == 1
        read = "/registry/api/2.0/mlflow/metrics/get-history"
        kept = await it.registry.client.get(read, params={"run_id": run["id"], "metric_key": "loss"})
        assert [point["step"] for point in kept.json()["metrics"]] == list(range(25))

        # What cannot be is refused by itself: a file that climbs out, bytes that are not here, another's run.
        file = {"path": "../../other/model.lgb", "digest": sha256(b"x"), "size": 1}
        await it.registry.upload(b"x")
        other = {**run, "id": "1" * 32}
        wrong = [{**other, "files": [file]}, {**other, "files": [{**file, "path": "m", "digest": sha256(b"y")}]}]
        for one in wrong:
            answer = await it.registry.client.post("/registry/v1/imports/runs", json={**body, "runs": [one]})
            (item,) = answer.json()["items"]
            assert item["outcome"] == "refused" and ("Invalid path" in item["reason"] or "upload it" in item["reason"])
        elsewhere = {**body, "experiment": {"name": "Other"}, "runs": [run]}
        (item,) = (await it.registry.client.post("/registry/v1/imports/runs", json=elsewhere)).json()["items"]
        assert item["outcome"] == "refused" and "another experiment" in item["reason"]


async def test_the_page_works_as_it_stands(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "credit.lgb").write_bytes(model_bytes())
    (folder / "credit.yaml").write_text(blocks("import-a-catalog.md", "yaml")[0])
    tool = tmp_path / "mintmark"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m mintmark.cli.main "$@"\n')
    tool.chmod(0o755)
    async with catalog(installation) as it:
        environment = {
            "MINTMARK_URL": it.url, "MINTMARK_API_KEY": it.key, "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }  # fmt: skip
        commands = blocks("import-a-catalog.md", "bash")
        assert len(commands) == 2
        shown = [await run(environment, "sh", "-c", f"cd {tmp_path} && {command}") for command in commands]
        assert "created   Credit PD (v2) version 3" in shown[0] and "nothing was changed" in shown[0]
        assert (await it.get("/search", name="Credit PD (v2)"))["items"][0]["aliases"] == ["champion"]


async def test_the_map_is_of_one_workspace(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    a_file(folder, "credit", 1, "version: 1\n")
    other = installation.key("user:eve", "owner", workspace="other")
    async with catalog(installation) as it:
        assert (await it.import_(lambda: Folder(folder))).changes == 2
        assert (await it.import_(lambda: Folder(folder), key=other)).changes == 2
        connection = await asyncpg.connect(installation.dsn("registry"))
        try:
            assert await connection.fetchval("SELECT count(*) FROM registry.imported") == 0
            await connection.execute("SELECT set_config('mintmark.workspace', 'other', false)")
            assert await connection.fetchval("SELECT count(*) FROM registry.imported") == 2
        finally:
            await connection.close()
