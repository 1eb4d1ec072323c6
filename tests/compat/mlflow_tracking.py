"""Scenarios of tracking: experiments, runs, metrics, files, logged models, autolog; and of search."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.models import infer_signature

from tests.compat.mlflow_servers import Findings

SOURCE = "s3://bucket/models/credit"


def experiments(it: Findings) -> None:
    client = it.client
    number = it.check(
        "an experiment is made", lambda: client.create_experiment("trees", tags={"team": "risk"}).isdigit()
    )
    assert number
    found = client.get_experiment_by_name("trees")
    it.check("it is found by name", lambda: found)
    it.check("and by id", lambda: client.get_experiment(found.experiment_id).name)
    it.check("its files' root", lambda: found.artifact_location.replace(f"/{found.experiment_id}", "/<id>"))
    it.check("the default one is there", lambda: client.get_experiment("0").name)
    it.check("an unknown name is none", lambda: client.get_experiment_by_name("nobody"))
    it.check("an unknown id", lambda: client.get_experiment("987654321"))
    it.check("an id that is no number", lambda: client.get_experiment("abc"))
    it.check("its name again", lambda: client.create_experiment("trees"))
    it.check("a name of nothing", lambda: client.create_experiment(""))
    it.check("a tag", lambda: client.set_experiment_tag(found.experiment_id, "a", "b"))
    it.check("tags are read", lambda: client.get_experiment(found.experiment_id).tags)
    it.check("a tag is removed", lambda: client.delete_experiment_tag(found.experiment_id, "a"))
    it.check("a missing tag is removed", lambda: client.delete_experiment_tag(found.experiment_id, "a"))
    it.check("renamed", lambda: client.rename_experiment(found.experiment_id, "forests"))
    it.check("under its new name", lambda: client.get_experiment_by_name("forests").name)
    it.check("renamed to a taken name", lambda: client.rename_experiment(found.experiment_id, "Default"))
    it.check("searched by name", lambda: [e.name for e in client.search_experiments(filter_string="name = 'forests'")])
    it.check("by a pattern", lambda: [e.name for e in client.search_experiments(filter_string="name ILIKE 'FOR%'")])
    it.check("by a tag", lambda: [e.name for e in client.search_experiments(filter_string="tags.team = 'risk'")])
    it.check("by a wrong filter", lambda: client.search_experiments(filter_string="name ~ 'x'"))
    it.check("by an unknown attribute", lambda: client.search_experiments(filter_string="colour = 'x'"))
    it.check("deleted", lambda: client.delete_experiment(found.experiment_id))
    it.check("it says so", lambda: client.get_experiment(found.experiment_id).lifecycle_stage)
    it.check("a run in it", lambda: client.create_run(found.experiment_id))
    it.check("deleted twice", lambda: client.delete_experiment(found.experiment_id))
    it.check("its name is still taken", lambda: client.create_experiment("forests"))
    it.check("found among the deleted", lambda: [
        e.name for e in client.search_experiments(view_type=ViewType.DELETED_ONLY)])  # fmt: skip
    it.check("restored", lambda: client.restore_experiment(found.experiment_id))
    it.check("active again", lambda: client.get_experiment(found.experiment_id).lifecycle_stage)


def runs(it: Findings) -> None:
    client = it.client
    number = client.create_experiment("runs")
    run = client.create_run(number, start_time=1_700_000_000_000, tags={"team": "risk"}, run_name="first")
    me = run.info.run_id
    it.check("a run is made", lambda: run.data.tags)
    it.check("its state", lambda: [run.info.status, run.info.lifecycle_stage, run.info.run_name, run.info.start_time])
    it.check("its files' root", lambda: run.info.artifact_uri.replace(f"/{number}/", "/<experiment>/"))
    it.check("an unknown run", lambda: client.get_run("0" * 32))
    it.check("names that differ", lambda: client.create_run(number, tags={"mlflow.runName": "a"}, run_name="b"))
    it.check("a parameter", lambda: client.log_param(me, "depth", 7))
    it.check("the same again", lambda: client.log_param(me, "depth", 7))
    it.check("another value of it", lambda: client.log_param(me, "depth", 8))
    it.check("a parameter that is a path", lambda: client.log_param(me, "../x", 8))
    it.check("a metric", lambda: client.log_metric(me, "auc", 0.5, timestamp=1000, step=0))
    it.check("later", lambda: client.log_metric(me, "auc", 0.9, timestamp=2000, step=2))
    it.check("between", lambda: client.log_metric(me, "auc", 0.7, timestamp=3000, step=1))
    it.check("the same point again", lambda: client.log_metric(me, "auc", 0.7, timestamp=3000, step=1))
    it.check("the latest is the highest step", lambda: client.get_run(me).data.metrics)
    it.check("its history", lambda: [
        (m.value, m.timestamp, m.step) for m in client.get_metric_history(me, "auc")])  # fmt: skip
    it.check("a history of nothing", lambda: client.get_metric_history(me, "nope"))
    for name, value in (("nan", math.nan), ("inf", math.inf), ("minus", -math.inf)):
        it.check(f"a metric of {name}", lambda name=name, value=value: client.log_metric(me, name, value, 1, 0))
    it.check("odd numbers are read", lambda: {
        name: repr(value) for name, value in client.get_run(me).data.metrics.items()})  # fmt: skip
    it.check("a metric with a hash", lambda: client.log_metric(me, "a#b", 1.0))
    it.check("a metric before time", lambda: client.log_metric(me, "early", 1.0, timestamp=-1))
    losses = [Metric("loss", float(n), n, n) for n in range(50)]
    it.check("a batch", lambda: client.log_batch(
        me, losses, [Param("a", "1"), Param("b", "2")], [RunTag("t", "u")]))  # fmt: skip
    it.check("a batch with a bad parameter", lambda: client.log_batch(
        me, [Metric("never", 1.0, 1, 1)], [Param("depth", "9")]))  # fmt: skip
    it.check("changed nothing", lambda: sorted(client.get_run(me).data.metrics))
    it.check("a batch of 101 tags", lambda: client.log_batch(me, tags=[RunTag(f"t{n}", "") for n in range(101)]))
    it.check("a tag", lambda: client.set_tag(me, "colour", "red"))
    it.check("a tag is removed", lambda: client.delete_tag(me, "colour"))
    it.check("a missing tag is removed", lambda: client.delete_tag(me, "colour"))
    it.check("renamed", lambda: client.update_run(me, name="second"))
    it.check("renamed by tag", lambda: client.set_tag(me, "mlflow.runName", "third"))
    it.check("its name", lambda: client.get_run(me).info.run_name)
    it.check("it ends", lambda: client.set_terminated(me, "FINISHED", end_time=1_700_000_001_000))
    it.check("it has ended", lambda: [client.get_run(me).info.status, client.get_run(me).info.end_time])
    it.check("deleted", lambda: client.delete_run(me))
    it.check("a metric of a deleted run", lambda: client.log_metric(me, "auc", 1.0))
    it.check("it says so", lambda: client.get_run(me).info.lifecycle_stage)
    it.check("restored", lambda: client.restore_run(me))
    it.check("a run of an unknown experiment", lambda: client.create_run("987654321"))
    data = mlflow.data.from_pandas(pd.DataFrame({"a": [1, 2]}), name="people", targets="a")
    with mlflow.start_run(run_id=me):
        it.check("a dataset", lambda: mlflow.log_input(data, context="training", tags={"k": "v"}))
    it.check("datasets are read", lambda: [
        (one.dataset.name, one.dataset.digest, {tag.key: tag.value for tag in one.tags})
        for one in client.get_run(me).inputs.dataset_inputs
    ])  # fmt: skip


def search_runs(it: Findings) -> None:
    client = it.client
    number = client.create_experiment("searched")
    for n in range(6):
        run = client.create_run(number, start_time=1000 + n, run_name=f"r{n}", tags={"even": str(n % 2 == 0)})
        client.log_batch(run.info.run_id, [Metric("auc", n / 10, 1, 1)], [Param("depth", str(n))])
    client.log_metric(run.info.run_id, "only", 1.0)

    def found(text: str = "", order: tuple[str, ...] = (), **more: Any) -> list[str]:
        return [run.info.run_name for run in client.search_runs([number], text, order_by=list(order), **more)]

    filters = {
        "all": "",
        "a metric": "metrics.auc > 0.2",
        "two metrics": "metrics.auc > 0.1 and metrics.auc <= 0.4",
        "a parameter": "params.depth = '3'",
        "another parameter": "params.depth != '3'",
        "a pattern": "params.depth LIKE '%'",
        "a tag": "tags.even = 'True'",
        "a tag in backticks": "tags.`even` = 'False'",
        "a name": "attributes.run_name = 'r4'",
        "a bare name": "run_name ILIKE 'R4'",
        "a state": "attributes.status = 'RUNNING'",
        "a time": "attributes.start_time >= 1003",
        "a metric that one has": "metrics.only > 0",
        "a metric that none has": "metrics.nope > 0",
        "a text for a number": "metrics.auc > 'a'",
        "a number for a text": "params.depth = 3",
        "OR": "params.depth = '1' OR params.depth = '2'",
        "no operator": "params.depth",
        "an unknown attribute": "attributes.colour = 'red'",
        "an unknown kind": "colours.a = 'red'",
    }
    for about, text in filters.items():
        it.check(f"by {about}", lambda text=text: found(text))
    it.check("ordered by a metric", lambda: found(order=("metrics.auc ASC",)))
    it.check("ordered by a parameter", lambda: found(order=("params.depth DESC",)))
    it.check("those without it last", lambda: found(order=("metrics.only DESC", "start_time ASC")))
    it.check("a page", lambda: found(max_results=4))
    it.check("the next page", lambda: [run.info.run_name for run in client.search_runs(
        [number], max_results=4, page_token=client.search_runs([number], max_results=4).token)])  # fmt: skip
    it.check("too many", lambda: found(max_results=50_001))
    it.check("of no experiment", lambda: client.search_runs([]))
    it.check("deleted ones", lambda: found(run_view_type=ViewType.DELETED_ONLY))


def search_models(it: Findings) -> None:
    client = it.client
    for n, name in enumerate(("sm-a", "sm-b", "sm-c")):
        client.create_registered_model(name, {"grade": "xyz"[n], "suite": "sm"})
        for v in range(2):
            client.create_model_version(name, f"{SOURCE}/{name}/{v}", tags={"v": str(v), "suite": "sm"})
    mlflow.genai.register_prompt("sm-prompt", "Hello", tags={"suite": "sm"})

    def models(text: str, **more: Any) -> list[str]:
        return [model.name for model in client.search_registered_models(text, **more)]

    def versions(text: str, **more: Any) -> list[str]:
        return sorted(f"{one.name}/{one.version}" for one in client.search_model_versions(text, **more))

    for text in (
        "name = 'sm-a'", "name LIKE 'sm-%'", "name ILIKE 'SM-%'", "name != 'sm-a' AND tags.suite = 'sm'",
        "tags.grade = 'x'", "tags.grade != 'x' AND tags.suite = 'sm'", "tags.`grade` = 'y'",
        "name = 'sm-a' AND tags.grade = 'y'", "name = 'nobody'", "grade = 'x'", "name > 'a'",
        "name = sm-a", "tags.suite = 'sm' OR name = 'sm-a'",
    ):  # fmt: skip
        it.check(f"models where {text}", lambda text=text: models(text))
    it.check("models in reverse", lambda: models("tags.suite = 'sm'", order_by=["name DESC"]))
    it.check("a page of models", lambda: models("name LIKE 'sm-%'", max_results=2))
    it.check("the next page", lambda: [model.name for model in client.search_registered_models(
        "name LIKE 'sm-%'", max_results=2,
        page_token=client.search_registered_models("name LIKE 'sm-%'", max_results=2).token)])  # fmt: skip
    it.check("1,001 models", lambda: models("", max_results=1001))
    for text in (
        "name = 'sm-a'", "name LIKE 'sm-%'", "tags.v = '1' AND name LIKE 'sm-%'", "tags.v != '1' AND name LIKE 'sm-%'",
        "version_number > 1 AND name LIKE 'sm-%'", "source_path = 's3://bucket/models/credit/sm-b/0'",
        "run_id = 'nope'", "name IN ('sm-a', 'sm-b')", "name = 'nobody'", "colour = 'red'", "version_number = 'one'",
    ):  # fmt: skip
        it.check(f"versions where {text}", lambda text=text: versions(text))
    it.check("versions in order", lambda: [one.version for one in client.search_model_versions(
        "name = 'sm-a'", order_by=["version_number ASC"])])  # fmt: skip
    it.check("prompts", lambda: [prompt.name for prompt in mlflow.genai.search_prompts("name = 'sm-prompt'")])
    it.check("the latest version of each", lambda: [
        (one.version, one.tags) for one in client.get_registered_model("sm-b").latest_versions])  # fmt: skip


def files(it: Findings) -> None:
    client, folder = it.client, it.folder
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "deep" / "b c.txt").write_text("two")
    (folder / "deep" / "er" / "ü.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / "empty").write_text("")
    number = client.create_experiment("files")
    me = client.create_run(number, run_name="files").info.run_id

    def listed(path: str | None = None) -> list[Any]:
        return sorted((one.path, one.is_dir, one.file_size) for one in client.list_artifacts(me, path))

    def read(path: str) -> int:
        return len(Path(client.download_artifacts(me, path, str(it.folder))).read_bytes())

    it.check("nothing yet", listed)
    it.check("a file", lambda: client.log_artifact(me, str(folder / "a.txt")))
    it.check("into a folder", lambda: client.log_artifact(me, str(folder / "a.txt"), "x/y"))
    it.check("a tree", lambda: client.log_artifacts(me, str(folder / "deep"), "tree"))
    it.check("an empty file", lambda: client.log_artifact(me, str(folder / "empty")))
    it.check("a text", lambda: client.log_text(me, "hello", "notes/hello.txt"))
    it.check("a dictionary", lambda: client.log_dict(me, {"a": [1]}, "notes/a.json"))
    it.check("the root", listed)
    it.check("a folder", lambda: listed("tree"))
    it.check("a folder in it", lambda: listed("tree/er"))
    it.check("a file is no folder", lambda: listed("a.txt"))
    it.check("a folder that is none", lambda: listed("nope"))
    it.check("a file comes back", lambda: read("tree/er/ü.bin"))
    it.check("an empty one, too", lambda: read("empty"))
    it.check("a tree comes back", lambda: sorted(
        path.name for path in Path(client.download_artifacts(me, "tree", str(it.folder))).rglob("*")))  # fmt: skip
    it.check("written again", lambda: client.log_text(me, "hello again", "notes/hello.txt"))
    it.check("is the newer one", lambda: mlflow.artifacts.load_text(f"runs:/{me}/notes/hello.txt"))
    it.check("a path that climbs", lambda: client.list_artifacts(me, "../.."))
    it.check("a path that climbs in disguise", lambda: client.list_artifacts(me, "%2e%2e/x"))


def logged_models(it: Findings) -> None:
    client = it.client
    number = client.create_experiment("logged")
    me = client.create_run(number, run_name="one").info.run_id
    model = client.create_logged_model(number, "net", me, {"team": "risk"}, {"depth": "3"}, "agent")
    it.check("a model", lambda: [model.name, model.model_type, str(model.status), model.tags, model.params])
    it.check("its files' root", lambda: model.artifact_location.replace(f"/{number}/", "/<experiment>/"))
    it.check("finished", lambda: str(client.finalize_logged_model(model.model_id, "READY").status))
    it.check("read", lambda: client.get_logged_model(model.model_id).name)
    it.check("an unknown one", lambda: client.get_logged_model("m-" + "0" * 32))
    it.check("a tag", lambda: client.set_logged_model_tags(model.model_id, {"a": "b"}))
    it.check("a tag is removed", lambda: client.delete_logged_model_tag(model.model_id, "team"))
    it.check("a missing tag is removed", lambda: client.delete_logged_model_tag(model.model_id, "team"))
    it.check("tags", lambda: client.get_logged_model(model.model_id).tags)
    it.check("a metric of it", lambda: client.log_metric(me, "auc", 0.5, 1, 1, model_id=model.model_id))
    it.check("its metric", lambda: [
        (m.key, m.value) for m in client.get_logged_model(model.model_id).metrics])  # fmt: skip
    it.check("searched", lambda: [
        one.name for one in client.search_logged_models([number], filter_string="name = 'net'")])  # fmt: skip
    it.check("registered", lambda: mlflow.register_model(f"models:/{model.model_id}", "from-logged").version)
    version = client.get_model_version("from-logged", "1")
    it.check("it has its run", lambda: version.run_id == me)
    it.check(
        "the model knows its version", lambda: client.get_logged_model(model.model_id).tags["mlflow.modelVersions"]
    )
    it.check("no file of the server's disk is of it", lambda: client.create_model_version(
        "from-logged", "/etc/passwd", model_id=model.model_id))  # fmt: skip
    it.check("by file neither", lambda: client.create_model_version(
        "from-logged", "file:///etc/passwd", model_id=model.model_id))  # fmt: skip
    it.check("where it is", lambda: client.get_model_version_download_uri("from-logged", "1").replace(
        f"/{number}/", "/<experiment>/"))  # fmt: skip
    it.check("deleted", lambda: client.delete_logged_model(model.model_id))
    it.check("gone", lambda: client.get_logged_model(model.model_id))


def lightgbm_models(it: Findings) -> None:
    client = it.client
    random = np.random.default_rng(7)
    rows = pd.DataFrame(random.normal(size=(200, 3)), columns=["income", "age", "debt"])
    target = (rows["income"] - rows["debt"] > 0).astype(int)
    mlflow.set_experiment("lightgbm")
    settings = {"objective": "binary", "num_leaves": 4, "verbose": -1, "num_threads": 1, "seed": 1}
    mlflow.lightgbm.autolog(log_models=False, log_datasets=True)
    try:
        with mlflow.start_run(run_name="auto") as run:
            booster = lightgbm.train(settings, lightgbm.Dataset(rows, target), num_boost_round=5,
                                     valid_sets=[lightgbm.Dataset(rows, target)], valid_names=["all"])  # fmt: skip
    finally:
        mlflow.lightgbm.autolog(disable=True)
    logged = client.get_run(run.info.run_id)
    it.check("autolog's parameters", lambda: logged.data.params)
    it.check("autolog's metrics", lambda: {name: round(value, 6) for name, value in logged.data.metrics.items()})
    it.check("autolog's history", lambda: len(client.get_metric_history(run.info.run_id, "all-binary_logloss")))
    it.check("autolog's files", lambda: sorted(one.path for one in client.list_artifacts(run.info.run_id)))
    it.check("autolog's dataset", lambda: len(logged.inputs.dataset_inputs))
    it.check("the run's end", lambda: logged.info.status)
    with mlflow.start_run(run_name="by hand"):
        info = mlflow.lightgbm.log_model(
            booster, name="model", registered_model_name="lgb", pip_requirements=["lightgbm"],
            signature=infer_signature(rows, booster.predict(rows)), input_example=rows[:2],
        )  # fmt: skip
    it.check("registered", lambda: info.registered_model_version)
    it.check("its source", lambda: client.get_model_version("lgb", "1").source)
    files = Path(mlflow.artifacts.download_artifacts("models:/lgb/1", dst_path=str(it.folder)))
    it.check("its files", lambda: sorted(path.name for path in files.iterdir()))
    it.check("loaded back, it predicts the same", lambda: bool(np.allclose(
        mlflow.lightgbm.load_model("models:/lgb/1").predict(rows), booster.predict(rows))))  # fmt: skip
    it.check("as a function, too", lambda: bool(np.allclose(
        mlflow.pyfunc.load_model("models:/lgb/1").predict(rows), booster.predict(rows))))  # fmt: skip
    client.set_registered_model_alias("lgb", "champion", "1")
    it.check("by its alias", lambda: len(mlflow.pyfunc.load_model("models:/lgb@champion").predict(rows)))
    it.check("its signature", lambda: str(mlflow.models.get_model_info("models:/lgb/1").signature.inputs))


SCENARIOS = (experiments, runs, search_runs, search_models, files, logged_models, lightgbm_models)
