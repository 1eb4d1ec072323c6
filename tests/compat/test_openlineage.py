"""The released openlineage-python client, unmodified, against the registry behind the front, over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import attr
import httpx
import pytest
import requests
import uvicorn
from openlineage.client import OpenLineageClient, OpenLineageClientOptions
from openlineage.client.event_v2 import (
    Dataset,
    DatasetEvent,
    InputDataset,
    Job,
    JobEvent,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
    StaticDataset,
)
from openlineage.client.facet_v2 import (
    DatasetFacet,
    JobFacet,
    RunFacet,
    column_lineage_dataset,
    data_quality_metrics_input_dataset,
    dataset_version_dataset,
    datasource_dataset,
    documentation_dataset,
    error_message_run,
    nominal_time_run,
    output_statistics_output_dataset,
    ownership_job,
    parent_run,
    processing_engine_run,
    schema_dataset,
    source_code_location_job,
    sql_job,
    symlinks_dataset,
)
from openlineage.client.serde import Serde
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpCompression, HttpConfig, HttpTransport

from services.__main__ import Front, Server
from shared.events.base import Artefact
from shared.events.upstream import AssetSubmitted, DatasetFile, DatasetVersion, Manifest, Training
from shared.ids import sha256
from shared.testing.backing import Backing
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
AT = "2026-11-20T10:00:00Z"
LATER = "2026-11-20T11:00:00Z"
ROWS, MODEL = b"a,b\n1,2\n", b"tree\nversion=v4\n"


@dataclass
class Here:
    """The front's address, and keys of a publisher and of a viewer."""

    url: str
    key: str
    viewer: str

    def client(self, base: str | None = None, key: str | None = None) -> OpenLineageClient:
        options = OpenLineageClientOptions(api_key=key or self.key)
        return OpenLineageClient(url=base or f"{self.url}/registry/", options=options)

    def get(self, path: str, **query: Any) -> Any:
        answer = httpx.get(
            f"{self.url}/registry/v1/{path}", params=query, headers={"authorization": f"Bearer {self.key}"}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, content: bytes, path: str = "/api/v1/lineage", **headers: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}{path}", content=content, headers={"authorization": f"Bearer {self.key}", **headers}
        )

    def edges(self, node: str, **query: Any) -> set[tuple[str, str, str]]:
        found = self.get("lineage", node=node, **query)["edges"]
        return {(edge["source"], edge["association"], edge["destination"]) for edge in found}

    def label(self, node: str) -> str:
        found = self.get("lineage", node=node, max_depth=1)["nodes"]
        return str(next(one["label"] for one in found if one["id"] == node))

    def facets(self, node: str, scope: str) -> dict[str, Any]:
        found = self.get("lineage/facets", node=node)
        return {one["name"]: one["facet"] for one in found if one["scope"] == scope and one["name"]}

    def register(self, event: AssetSubmitted, *data: bytes) -> None:
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        for one in data:
            httpx.put(
                f"{self.url}/registry/v1/artefacts/{sha256(one)}", content=one, headers=headers
            ).raise_for_status()
        answer = httpx.post(f"{self.url}/registry/v1/submissions", content=event.model_dump_json(), headers=headers)
        assert answer.json()["state"] == "registered", answer.text


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    """One registry for all of these, in a loop of its own, so that a blocking client can call it."""
    loop, ready, folder = asyncio.new_event_loop(), threading.Event(), tempfile.TemporaryDirectory()
    made: list[Here] = []
    over = asyncio.Event()

    async def serve() -> None:
        installation = await Installation(Backing.of_run(), Path(folder.name)).prepare()
        try:
            key, viewer = installation.key("pipeline:spark", "publisher"), installation.key("user:eve", "viewer")
            await installation.start("registry")
            app = Front([installation.services["registry"]])
            server = Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", access_log=False))
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            made.append(Here(f"http://127.0.0.1:{port}", key, viewer))
            ready.set()
            await over.wait()
            server.should_exit = True
            await serving
        finally:
            await installation.close()
            ready.set()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], daemon=True)
    thread.start()
    assert ready.wait(60) and made, "the registry did not start"
    yield made[0]
    loop.call_soon_threadsafe(over.set)
    thread.join(30)
    folder.cleanup()


def a_job(name: str = "daily.features", **facets: JobFacet) -> Job:
    return Job(namespace="airflow", name=name, facets=facets)


def an_event(
    run: str | None = None,
    state: RunState = RunState.COMPLETE,
    at: str = AT,
    inputs: list[InputDataset] | None = None,
    outputs: list[OutputDataset] | None = None,
    job: Job | None = None,
    **facets: RunFacet,
) -> RunEvent:
    return RunEvent(
        eventTime=at, eventType=state, run=Run(runId=run or str(uuid4()), facets=facets), job=job or a_job(),
        inputs=inputs or [], outputs=outputs or [], producer="https://example.org/test",
    )  # fmt: skip


def a_table(name: str, **facets: DatasetFacet) -> InputDataset:
    return InputDataset(namespace="postgres://db:5432", name=name, facets=facets)


def as_output(dataset: Dataset) -> OutputDataset:
    return OutputDataset(namespace=dataset.namespace, name=dataset.name, facets=dataset.facets)


def table_node(name: str) -> str:
    return f"openlineage:dataset:postgres://db:5432/{name}"


def plain(facet: Any) -> Any:
    return json.loads(Serde.to_json(attr.asdict(facet)))


@pytest.mark.parametrize("base", ["/registry/", "/registry", "", "/"])
def test_the_client_finds_its_route_whatever_base_it_is_given(here: Here, base: str) -> None:
    run = str(uuid4())
    here.client(here.url + base).emit(an_event(run, inputs=[a_table(f"base.{uuid4()}")]))
    assert here.label(f"run:{run}") == "run of airflow/daily.features (finished)"


def test_from_its_environment(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", f"{here.url}/registry/")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__AUTH", json.dumps({"type": "api_key", "apiKey": here.key}))
    run = str(uuid4())
    OpenLineageClient().emit(an_event(run, RunState.START))
    assert here.label(f"run:{run}").endswith("(running)")


def test_gzip(here: Here) -> None:
    config = HttpConfig(
        url=f"{here.url}/registry/",
        auth=ApiKeyTokenProvider({"api_key": here.key}),
        compression=HttpCompression.GZIP,
    )
    run = str(uuid4())
    OpenLineageClient(transport=HttpTransport(config)).emit(an_event(run))
    assert here.label(f"run:{run}").endswith("(finished)")


def test_its_transport_that_does_not_wait(here: Here) -> None:
    config = {"type": "async_http", "url": f"{here.url}/registry/", "auth": {"type": "api_key", "apiKey": here.key}}
    client, run = OpenLineageClient(config={"transport": config}), str(uuid4())
    client.emit(an_event(run, RunState.START))
    client.emit(an_event(run, RunState.COMPLETE, LATER))
    assert client.close(timeout=20)
    assert here.label(f"run:{run}").endswith("(finished)")


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (RunState.START, "running"), (RunState.RUNNING, "running"), (RunState.COMPLETE, "finished"),
        (RunState.FAIL, "failed"), (RunState.ABORT, "killed"), (RunState.OTHER, "other"),
    ],
)  # fmt: skip
def test_states(here: Here, state: RunState, word: str) -> None:
    run = str(uuid4())
    here.client().emit(an_event(run, state))
    assert here.label(f"run:{run}") == f"run of airflow/daily.features ({word})"


@pytest.mark.parametrize("last", [RunState.COMPLETE, RunState.FAIL, RunState.ABORT])
def test_an_end_that_is_heard_before_its_beginning(here: Here, last: RunState) -> None:
    run, client = str(uuid4()), here.client()
    client.emit(an_event(run, last, LATER))
    ended = here.label(f"run:{run}")
    client.emit(an_event(run, RunState.RUNNING, "2026-11-20T10:30:00Z"))
    client.emit(an_event(run, RunState.START, AT))
    assert here.label(f"run:{run}") == ended


def test_the_same_event_again_changes_nothing(here: Here) -> None:
    event = an_event(inputs=[a_table("twice")])
    first, second = (here.client().transport.emit(event) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert len(here.edges(table_node("twice"))) == 1


def test_from_input_over_run_to_output(here: Here) -> None:
    run = str(uuid4())
    here.client().emit(an_event(run, inputs=[a_table("raw.in")], outputs=[as_output(a_table("features.out"))]))
    job = "openlineage:job:airflow/daily.features"
    assert here.edges(table_node("raw.in"), direction="downstream") == {
        (table_node("raw.in"), "ContributedTo", f"run:{run}"),
        (f"run:{run}", "Produced", table_node("features.out")),
    }
    assert (job, "AssociatedWith", f"run:{run}") in here.edges(f"run:{run}")
    way = here.get("lineage/path", source=table_node("raw.in"), destination=table_node("features.out"))
    assert [node["kind"] for node in way["nodes"]] == ["dataset", "run", "dataset"]
    before = here.edges(table_node("raw.in"), at="2026-11-20T09:00:00Z")
    assert before == set(), "nothing held before the event's own time"


def test_a_dataset_event(here: Here) -> None:
    fields = schema_dataset.SchemaDatasetFacet(fields=[schema_dataset.SchemaDatasetFacetFields(name="a", type="int")])
    dataset = StaticDataset(namespace="postgres://db:5432", name="static", facets={"schema": fields})
    here.client().emit(DatasetEvent(eventTime=AT, producer="https://example.org", dataset=dataset))
    assert here.facets(table_node("static"), "dataset") == {"schema": plain(fields)}
    assert here.get("lineage", node=table_node("static"))["nodes"][0]["label"] == "postgres://db:5432/static"


def test_a_job_event(here: Here) -> None:
    job = a_job("static.job", sql=sql_job.SQLJobFacet(query="SELECT 1"))
    event = JobEvent(
        eventTime=AT, producer="https://example.org", job=job, inputs=[a_table("job.in")],
        outputs=[as_output(a_table("job.out"))],
    )  # fmt: skip
    here.client().emit(event)
    node = "openlineage:job:airflow/static.job"
    assert here.edges(node) == {
        (table_node("job.in"), "ContributedTo", node), (node, "Produced", table_node("job.out")),
    }  # fmt: skip
    assert here.facets(node, "job")["sql"]["query"] == "SELECT 1"


def test_a_run_of_a_run(here: Here) -> None:
    parent, child = str(uuid4()), str(uuid4())
    facet = parent_run.ParentRunFacet(
        run=parent_run.Run(runId=parent), job=parent_run.Job(namespace="airflow", name="dag")
    )
    here.client().emit(an_event(child, parent=facet))
    assert (f"run:{parent}", "AssociatedWith", f"run:{child}") in here.edges(f"run:{child}", direction="upstream")


RUN_FACETS = {
    "nominalTime": nominal_time_run.NominalTimeRunFacet(nominalStartTime=AT),
    "errorMessage": error_message_run.ErrorMessageRunFacet(message="no", programmingLanguage="python"),
    "processing_engine": processing_engine_run.ProcessingEngineRunFacet(version="4.0", name="spark"),
    "ours_of_nobody": RunFacet().with_additional_properties(anything={"deep": [1, 2.5, None, "ü"]}),
}
JOB_FACETS = {
    "sql": sql_job.SQLJobFacet(query="SELECT a FROM b"),
    "ownership": ownership_job.OwnershipJobFacet(owners=[ownership_job.Owner(name="team:data")]),
    "sourceCodeLocation": source_code_location_job.SourceCodeLocationJobFacet(type="git", url="https://example.org"),
    "ours_of_nobody": JobFacet().with_additional_properties(x=1),
}
DATASET_FACETS = {
    "dataSource": datasource_dataset.DatasourceDatasetFacet(name="db", uri="https://example.org"),
    "documentation": documentation_dataset.DocumentationDatasetFacet(description="rows"),
    "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion="7"),
    "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet(
        fields={
            "a": column_lineage_dataset.Fields(
                inputFields=[column_lineage_dataset.InputField(namespace="n", name="t", field="b")]
            )
        }
    ),
    "ours_of_nobody": DatasetFacet().with_additional_properties(x=[{}, {"y": True}]),
}


@pytest.mark.parametrize("name", sorted(RUN_FACETS))
def test_a_runs_facet_is_kept_as_it_came(here: Here, name: str) -> None:
    run = str(uuid4())
    here.client().emit(an_event(run, **{name: RUN_FACETS[name]}))
    assert here.facets(f"run:{run}", "run")[name] == plain(RUN_FACETS[name])


@pytest.mark.parametrize("name", sorted(JOB_FACETS))
def test_a_jobs_facet_is_kept_as_it_came(here: Here, name: str) -> None:
    job = a_job(f"job-{uuid4()}", **{name: JOB_FACETS[name]})
    here.client().emit(an_event(job=job))
    assert here.facets(f"openlineage:job:airflow/{job.name}", "job") == {name: plain(JOB_FACETS[name])}


@pytest.mark.parametrize("name", sorted(DATASET_FACETS))
def test_a_datasets_facet_is_kept_as_it_came(here: Here, name: str) -> None:
    table = a_table(f"t-{uuid4()}", **{name: DATASET_FACETS[name]})
    here.client().emit(an_event(inputs=[table]))
    assert here.facets(table_node(table.name), "dataset") == {name: plain(DATASET_FACETS[name])}


def test_facets_of_inputs_and_outputs(here: Here) -> None:
    seen = data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet(columnMetrics={}, rowCount=7)
    written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=6, size=60)
    source, target = a_table("stats.in"), as_output(a_table("stats.out"))
    source.inputFacets, target.outputFacets = {"dataQualityMetrics": seen}, {"outputStatistics": written}
    here.client().emit(an_event(inputs=[source], outputs=[target]))
    assert here.facets(table_node("stats.in"), "input") == {"dataQualityMetrics": plain(seen)}
    assert here.facets(table_node("stats.out"), "output") == {"outputStatistics": plain(written)}


def test_the_newest_word_on_a_facet_counts_not_the_last_heard(here: Here) -> None:
    def described(text: str) -> InputDataset:
        return a_table("worded", documentation=documentation_dataset.DocumentationDatasetFacet(description=text))

    here.client().emit(an_event(at=LATER, inputs=[described("new")]))
    here.client().emit(an_event(at=AT, inputs=[described("old")]))
    assert here.facets(table_node("worded"), "dataset")["documentation"]["description"] == "new"
    gone = a_table(
        "worded", documentation=documentation_dataset.DocumentationDatasetFacet(description="", deleted=True)
    )
    here.client().emit(an_event(at="2026-11-20T12:00:00Z", inputs=[gone]))
    assert here.facets(table_node("worded"), "dataset") == {}


def test_a_symlink_is_the_same_dataset(here: Here) -> None:
    other = symlinks_dataset.Identifier(namespace="hive", name="db.linked", type="TABLE")
    links = symlinks_dataset.SymlinksDatasetFacet(identifiers=[other])
    here.client().emit(an_event(inputs=[a_table("linked", symlinks=links)]))
    run = str(uuid4())
    here.client().emit(an_event(run, inputs=[InputDataset(namespace="hive", name="db.linked")]))
    assert (table_node("linked"), "SameAs", "openlineage:dataset:hive/db.linked") in here.edges(table_node("linked"))
    found = here.get("lineage", node=table_node("linked"), direction="downstream")
    assert f"run:{run}" in {node["id"] for node in found["nodes"]}


@pytest.mark.parametrize("name", ["of-spark"])
def test_their_tables_reach_our_models(here: Here, name: str) -> None:
    """By a facet, by our namespace, and by a run that a version of ours names."""
    raw, clean = a_table(f"{name}.raw"), f"{name}.clean"
    file = DatasetFile(path="a.csv", digest=sha256(ROWS), size=len(ROWS), rows=1, split="train", format="csv")
    manifest = Manifest(files=(file,), source="test", licence="CC0-1.0")
    here.register(AssetSubmitted(submission_id=uuid4(), kind="dataset", name="census", manifest=manifest), ROWS)
    run, training = str(uuid4()), str(uuid4())
    ours = DatasetFacet().with_additional_properties(urn="mm:dataset/census", version=1)
    here.client().emit(an_event(run, inputs=[raw], outputs=[as_output(a_table(clean, mintmark=ours))]))
    named = InputDataset(namespace="mintmark://default", name="mm:dataset/census@1")
    here.client().emit(an_event(training, inputs=[named]))
    model = AssetSubmitted(
        submission_id=uuid4(), kind="model", name=name, artefact=Artefact(digest=sha256(MODEL), format="lightgbm"),
        training=Training(run_id=training, dataset=DatasetVersion(urn="mm:dataset/census", version=1)),
    )  # fmt: skip
    here.register(model, MODEL)
    assert (table_node(clean), "SameAs", "mm:dataset/census@1") in here.edges("mm:dataset/census@1")
    assert ("mm:dataset/census@1", "ContributedTo", f"run:{training}") in here.edges(f"run:{training}")
    found = here.get("lineage/impact", node=table_node(raw.name))
    (reached,) = (one for one in found["affected"]["model"] if one["label"] == f"{name} 1 (development)")
    way = [edge["association"] for edge in reached["path"]]
    assert way[:3] == ["ContributedTo", "Produced", "SameAs"]


@pytest.mark.parametrize("name", ["ünïcode/tàble", "with space", "x" * 3000, "a/../b", "%41", "mm:dataset/census@1"])
def test_names_of_any_kind(here: Here, name: str) -> None:
    run = str(uuid4())
    here.client().emit(an_event(run, inputs=[a_table(name)]))
    (node,) = [source for source, _, _ in here.edges(f"run:{run}") if source.startswith("openlineage:dataset:")]
    found = here.get("lineage/facets", node=node)
    assert found[0]["facet"] == {"namespace": "postgres://db:5432", "name": name}


def test_who_may_not(here: Here) -> None:
    for key, status in (("mmk_nobody", 401), (here.viewer, 403)):
        with pytest.raises(requests.HTTPError) as refused:
            here.client(key=key).emit(an_event())
        assert refused.value.response.status_code == status
        assert refused.value.response.json()["code"] in ("unauthenticated", "forbidden")


def body(**changed: Any) -> bytes:
    document = json.loads(Serde.to_json(an_event(inputs=[a_table("raw")])))
    return json.dumps({key: value for key, value in {**document, **changed}.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("content", "headers", "status", "word"),
    [
        (b"{", {}, 400, "JSON"),
        (b'"text"', {}, 422, "object"),
        (b"[]x", {}, 400, "JSON"),
        (body(run=...), {}, 201, ""),  # then it is a JobEvent
        (body(run=..., job=...), {}, 422, "a run and a job"),
        (body(eventTime=...), {}, 422, "eventTime"),
        (body(eventTime="2026-11-20"), {}, 422, "eventTime"),
        (body(eventTime=17), {}, 422, "eventTime"),
        (body(producer=...), {}, 422, "producer"),
        (body(eventType="DONE"), {}, 422, "eventType"),
        (body(run={"runId": "17"}), {}, 422, "run.runId"),
        (body(job={"namespace": "x"}), {}, 422, "job.name"),
        (body(inputs={}), {}, 422, "inputs"),
        (body(inputs=[7]), {}, 422, "inputs[0]"),
        (body(outputs=[{"namespace": "n"}]), {}, 422, "outputs[0].name"),
        (body(inputs=[{"namespace": "n", "name": "t", "facets": {"x": 1}}]), {}, 422, "inputs[0].facets.x"),
        (body(inputs=[{"namespace": "n", "name": "t", "facets": {"mintmark": {"urn": "x"}}}]), {}, 422, "mintmark"),
        (body(run={"runId": str(uuid4()), "facets": {"parent": {"run": 7}}}), {}, 201, ""),
        (body(), {"content-encoding": "br"}, 422, "gzip"),
        (body(), {"content-encoding": "gzip"}, 400, "gzip"),
        (gzip.compress(body())[:-9], {"content-encoding": "gzip"}, 400, "cut off"),
        (gzip.compress(b" " * 30_000_000), {"content-encoding": "gzip"}, 413, "unpacked"),
        (body(big=10**30), {}, 201, ""),
        (b"[" * 100_000, {}, 400, "deeper"),
    ],
)
def test_what_is_no_event_is_told_why(
    here: Here, content: bytes, headers: dict[str, str], status: int, word: str
) -> None:
    answer = here.post(content, **headers)
    assert answer.status_code == status and word in answer.text, answer.text


def test_a_list_is_taken_event_by_event(here: Here) -> None:
    events = [json.loads(body()), {"nothing": True}, json.loads(body(eventTime="yesterday")), json.loads(body())]
    answer = here.post(json.dumps(events).encode(), "/registry/api/v1/lineage/batch")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["received"], found["successful"]) == (4, 2)
    assert [one["index"] for one in found["failed"]] == [1, 2] and "eventTime" in found["failed"][1]["reason"]
    assert here.post(b"[]").json() == {"received": 0, "successful": 0, "failed": []}
    assert here.post(b'[{"nothing": true}]').status_code == 422


def test_what_we_tell_is_what_its_classes_hold(here: Here) -> None:
    """Every event that we give out is one of the client's own, and goes in again as such."""
    test_their_tables_reach_our_models(here, "told")
    told, since = [], None
    while True:
        page = here.get("lineage/openlineage", **({"since": since} if since else {}))
        if not page["events"] and page["since"] == since:
            break
        told, since = told + page["events"], page["since"]
    assert {event["job"]["name"] for event in told} >= {"run/airflow/daily.features"}
    for event in told:
        rebuilt = RunEvent(
            eventTime=event["eventTime"],
            eventType=RunState(event["eventType"]),
            producer=event["producer"],
            run=Run(runId=event["run"]["runId"]),
            job=Job(namespace=event["job"]["namespace"], name=event["job"]["name"]),
            inputs=[InputDataset(namespace=one["namespace"], name=one["name"]) for one in event["inputs"]],
            outputs=[OutputDataset(namespace=one["namespace"], name=one["name"]) for one in event["outputs"]],
        )
        assert rebuilt.schemaURL == event["schemaURL"]
        facets = [event["run"]["facets"], event["job"]["facets"]]
        facets += [one["facets"] for one in (*event["inputs"], *event["outputs"])]
        for facet in (facet for group in facets for facet in group.values()):
            assert facet["_producer"].startswith("https://") and "#/$defs/" in facet["_schemaURL"]
        here.client().emit(rebuilt)
    assert here.get("lineage/openlineage", since=since)["events"] == [], "what was heard is not told again"
