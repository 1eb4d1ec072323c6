"""A real MLflow server imported by the command line, and both sides read by MLflow's own client: the same, and once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric

from shared.ids import sha256
from tests.compat.mlflow_servers import OURS, REAL, Server

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("mlflow"), pytest.mark.filterwarnings("ignore")]

NAME, EMPTY, LONG = "Import: Credit".replace(":", " -"), "Import ☃", "Import " + "n" * 240
PROMPT, LOGGED = "import-greet", "Import logged"
MODEL = b"tree\nversion=v4\nnum_class=1\nfeature_names=f7\n"


@dataclass
class Filled:
    """Both servers, and the runs that were made at the real one."""

    servers: dict[str, Server]
    run_id: str
    experiment: str

    def bring(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """`mintmark import mlflow … --json` of what this module made."""
        ours = self.servers[OURS]
        environment = {
            **os.environ,
            "MINTMARK_URL": ours.uri.removesuffix("/registry"),
            "MINTMARK_API_KEY": ours.token or "",
        }
        command = [sys.executable, "-m", "mintmark.cli.main", "import", "mlflow", self.servers[REAL].uri, "--json"]
        done = subprocess.run(
            [*command, "--only", "Import*", "--only", "import-*", *arguments], env=environment, capture_output=True
        )
        assert done.returncode == code, (done.stdout.decode()[-3000:], done.stderr.decode()[-3000:])
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def filled(servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with servers[REAL].chosen() as client:
        run_id, experiment = _fill(client, tmp_path_factory.mktemp("files"))
    yield Filled(servers, run_id, experiment)


def _fill(client: MlflowClient, folder: Path) -> tuple[str, str]:
    experiment = client.create_experiment("Import credit", tags={"team": "labour"})
    run = client.create_run(experiment, run_name="night shift", tags={"k": "v"})
    run_id = run.info.run_id
    client.log_batch(run_id, [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(900)])
    client.log_metric(run_id, "broken", float("nan"), step=3)
    client.log_param(run_id, "depth", "7")
    data = Dataset("rows", "abc123", "local", "{}", schema="{}")
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    (folder / "model" / "deep").mkdir(parents=True)
    (folder / "model" / "model.lgb").write_bytes(MODEL)
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    (folder / "model" / "deep" / "a b.txt").write_text("words")
    client.log_artifacts(run_id, str(folder / "model"), "model")
    logged = client.create_logged_model(experiment, name="kept", source_run_id=run_id, tags={"of": "run"})
    client.log_model_artifacts(logged.model_id, str(folder / "model"))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 3)])
    client.set_terminated(run_id)

    client.create_registered_model(NAME, tags={"team": "labour", "empty": ""}, description="What is lost")
    where = f"{run.info.artifact_uri}/model"
    for number in range(1, 6):
        client.create_model_version(NAME, where, run_id, tags={"n": str(number)}, description=f"version {number}")
    client.delete_model_version(NAME, "3")
    client.transition_model_version_stage(NAME, "1", "Archived")
    client.transition_model_version_stage(NAME, "2", "Production")
    client.transition_model_version_stage(NAME, "4", "Staging")
    client.set_registered_model_alias(NAME, "champion", "2")
    client.set_registered_model_alias(NAME, "old", "1")
    client.create_registered_model(EMPTY)
    client.create_registered_model(LONG)
    client.create_model_version(LONG, "s3://elsewhere/model")
    client.create_registered_model(LOGGED)
    client.create_model_version(LOGGED, f"models:/{logged.model_id}", model_id=logged.model_id)
    mlflow.genai.register_prompt(PROMPT, "Hello {{name}}", commit_message="first", tags={"tone": "warm"})
    mlflow.genai.register_prompt(PROMPT, "Good morning {{name}}", commit_message="second")
    mlflow.genai.set_prompt_alias(PROMPT, "production", 1)
    return run_id, experiment


def _models(client: MlflowClient) -> dict[str, Any]:
    """Everything that a client sees of the models that were imported."""
    found: dict[str, Any] = {}
    for name in (NAME, EMPTY, LONG, LOGGED):
        model = client.get_registered_model(name)
        found[name] = (model.description or "", model.tags, model.aliases, model.creation_timestamp)
        for version in client.search_model_versions(f"name='{name}'"):
            found[f"{name}/{version.version}"] = (
                version.description or "", version.tags, version.source, version.run_id, version.current_stage,
                version.creation_timestamp, version.last_updated_timestamp,
            )  # fmt: skip
    return found


def _run(client: MlflowClient, run_id: str, folder: Path) -> dict[str, Any]:
    run = client.get_run(run_id)
    (model,) = client.search_logged_models([run.info.experiment_id], filter_string="name = 'kept'")
    files = {
        where: {
            path.relative_to(folder / where).as_posix(): path.read_bytes()
            for path in sorted(Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder / where))).rglob("*"))
            if path.is_file()
        }
        for where, uri in (
            ("run", f"runs:/{run_id}/model"),
            ("version", f"models:/{NAME}/2"),
            ("m", f"models:/{LOGGED}/1"),
        )
    }
    return {
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "tags": client.get_experiment(run.info.experiment_id).tags.get("team"),
        "run": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time, run.data.params),
        "run tags": {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.log")},
        "history": [(one.step, one.timestamp, one.value) for one in client.get_metric_history(run_id, "loss")],
        "inputs": [one.to_dictionary() for one in run.inputs.dataset_inputs],
        "outputs": [(one.model_id, one.step) for one in run.outputs.model_outputs],
        "nan": repr(client.get_metric_history(run_id, "broken")[0].value),
        "logged": (model.model_id, model.name, model.status, model.tags.get("of"), model.source_run_id),
        "files": files,
    }


def test_both_sides_say_the_same_and_the_second_time_changes_nothing(filled: Filled, tmp_path: Path) -> None:
    shown = filled.bring("--dry-run")
    assert (shown["assets"], shown["versions"]) == ({"created": 5}, {"created": 8}), shown
    assert shown["runs"] == {"created": 2}
    assert "Import credit" not in _experiments(filled.servers[OURS])  # a dry run writes nothing

    done = filled.bring()
    assert (done["assets"], done["versions"], done["runs"]) == ({"created": 5}, {"created": 8}, {"created": 2}), done
    sides = {}
    for name, server in filled.servers.items():
        (tmp_path / name).mkdir()
        with server.chosen() as client:
            sides[name] = (_models(client), _run(client, filled.run_id, tmp_path / name))
            (tmp_path / name / "texts").write_text(
                repr([mlflow.genai.load_prompt(f"prompts:/{PROMPT}/{number}").template for number in (1, 2)])
            )
            assert mlflow.genai.load_prompt(f"prompts:/{PROMPT}@production").version == 1
    assert sides[OURS][0] == sides[REAL][0]
    assert sides[OURS][1] == sides[REAL][1]
    assert len(sides[REAL][1]["history"]) == 900 and len(sides[REAL][0]) == 10
    assert sides[REAL][1]["inputs"] and sides[REAL][1]["outputs"]
    for files in sides[REAL][1]["files"].values():  # MLflow's client adds one of its own where it downloads a version
        assert {"MLmodel", "model.lgb", "a b.txt"} <= {Path(file).name for file in files}
    assert (tmp_path / OURS / "texts").read_text() == (tmp_path / REAL / "texts").read_text()

    again = filled.bring()
    assert (again["assets"], again["versions"], again["runs"]) == ({"same": 5}, {"same": 8}, {"same": 2}), again
    assert again["rows"] == []


def test_what_the_registry_knows_beyond_mlflow(filled: Filled) -> None:
    filled.bring()
    with filled.servers[OURS].http() as http:
        (two,) = (one for one in _search(http, NAME) if one["version"] == 2)
        assert two["author"] == {"id": "imported:mlflow/unknown", "proven": False}
        assert two["content"]["artefact"] == {"digest": sha256(MODEL), "format": "lightgbm"}
        path = f"v1/assets/{two['urn'].removeprefix('mm:')}"
        moved = http.get(f"{path}/versions/2/stage/history").json()["items"]
        assert [(move["after"], move["at"]) for move in moved] == [("production", two["updated_at"])]
        produced = http.get("v1/lineage", params={"node": f"{two['urn']}@2", "direction": "ascendants"}).json()
        assert f"run:{filled.run_id}" in {node["id"] for node in produced["nodes"]}
        assert http.get(f"{path}/versions/3").status_code == 404  # the gap of the version that was deleted


def test_what_changes_there_changes_here(filled: Filled) -> None:
    filled.bring()
    with filled.servers[REAL].chosen() as client:
        client.set_registered_model_alias(NAME, "champion", "4")
        client.delete_registered_model_alias(NAME, "old")
        client.set_model_version_tag(NAME, "5", "fresh", "yes")
        client.delete_model_version_tag(NAME, "5", "n")
        client.transition_model_version_stage(NAME, "5", "Production", archive_existing_versions=True)
        client.set_tag(filled.run_id, "k", "w")
        client.create_model_version(NAME, "s3://elsewhere/six")
    shown = filled.bring("--dry-run")
    changed = {(row["version"], one["field"]) for row in shown["rows"] for one in row["differences"]}
    assert {(None, "alias:champion"), (None, "alias:old"), (5, "tag:fresh"), (5, "tag:n"), (5, "stage")} <= changed
    done = filled.bring()
    assert done["versions"]["created"] == 1 and done["runs"].get("changed") == 1
    found = {}
    for name, server in filled.servers.items():
        with server.chosen() as client:
            stages = {one.version: one.current_stage for one in client.search_model_versions(f"name='{NAME}'")}
            five = client.get_model_version(NAME, "5")
            run = client.get_run(filled.run_id)
            found[name] = (client.get_registered_model(NAME).aliases, stages, five.tags, run.data.tags["k"])
    assert found[OURS] == found[REAL]
    assert filled.bring()["rows"] == []


def _experiments(server: Server) -> set[str]:
    with server.chosen() as client:
        return {one.name for one in client.search_experiments()}


def _search(http: Any, title: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = http.get("v1/search", params={"name": title}).json()["items"]
    return items
