"""What an OpenLineage event says: edges, facets, a run. Pure; nothing of an event is lost by reading it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from services.registry.domain.graph import identify
from services.registry.domain.lineage import Edge, Run
from shared.errors import Invalid
from shared.events.base import Urn
from shared.ids import sha256

_URN: TypeAdapter[str] = TypeAdapter(Urn)
NAMESPACE = "mintmark://"
"""Datasets of this namespace (and its workspace) are ours, by the names of their nodes: `mm:dataset/census@1`."""
LONGEST_NODE = 900  # bytes; two of them fit into a row of an index
STATES = {
    "START": "running",
    "RUNNING": "running",
    "COMPLETE": "finished",
    "FAIL": "failed",
    "ABORT": "killed",
    "OTHER": "other",
}
ENDED = ("COMPLETE", "FAIL", "ABORT")
SELF = ""
"""The facet without a name: what a node is called."""


@dataclass(frozen=True, slots=True)
class Facet:
    """One facet of a node, as it came. Scopes: dataset, input, output, job, run."""

    node: str
    scope: str
    name: str
    document: dict[str, Any]


@dataclass(slots=True)
class Heard:
    """One event, read."""

    kind: str
    digest: str
    at: datetime
    document: dict[str, Any]
    edges: list[Edge] = field(default_factory=list)
    facets: list[Facet] = field(default_factory=list)
    run: Run | None = None


def read(document: Any, workspace: str) -> Heard:
    """Read a RunEvent, DatasetEvent or JobEvent. Raises Invalid with the field that is wrong."""
    if not isinstance(document, dict):
        raise Invalid("an OpenLineage event is a JSON object")
    at = _moment(document.get("eventTime"))
    _text(document, "producer")
    kind = next((kind for kind in ("run", "dataset", "job") if kind in document), None)
    if kind is None:
        raise Invalid("an OpenLineage event has a run and a job, or a dataset, or a job")
    heard = Heard(kind, _digest(document), at, document)
    reader = {"run": _run_event, "dataset": _dataset_event, "job": _job_event}[kind]
    reader(heard, workspace)
    return heard


def dataset_node(namespace: str, name: str, workspace: str) -> str:
    """A dataset's node: one of ours in our own namespace, else `openlineage:dataset:<namespace>/<name>`."""
    if namespace == NAMESPACE + workspace and identify(name).version is not None and _is_ours(name):
        return name
    return _bounded("openlineage:dataset:", f"{namespace}/{name}")


def job_node(namespace: str, name: str) -> str:
    return _bounded("openlineage:job:", f"{namespace}/{name}")


def _run_event(heard: Heard, workspace: str) -> None:
    document = heard.document
    run, job = _part(document, "run"), _part(document, "job")
    run_id, state = _uuid(run, "run.runId"), document.get("eventType")
    if state is not None and state not in STATES:
        raise Invalid(f"eventType is one of {', '.join(STATES)}")
    here, its_job = f"run:{run_id}", _job(heard, job)
    heard.edges.append(Edge(its_job, "AssociatedWith", here))
    heard.facets += _facets(here, "run", run, "facets", "run.facets")
    parent = _parent(run)
    if parent is not None and parent != run_id:
        heard.edges.append(Edge(f"run:{parent}", "AssociatedWith", here))
    _data(heard, document, here, workspace)
    heard.run = Run(
        id=run_id,
        job=f"{job['namespace']}/{job['name']}",
        state=STATES[state or "OTHER"],
        at=heard.at,
        started_at=heard.at if state == "START" else None,
        ended_at=heard.at if state in ENDED else None,
    )


def _dataset_event(heard: Heard, workspace: str) -> None:
    _dataset(heard, _part(heard.document, "dataset"), "dataset", workspace)


def _job_event(heard: Heard, workspace: str) -> None:
    _data(heard, heard.document, _job(heard, _part(heard.document, "job")), workspace)


def _data(heard: Heard, document: dict[str, Any], here: str, workspace: str) -> None:
    """Inputs and outputs of a run or a job."""
    for number, one in enumerate(_list(document, "inputs")):
        node = _dataset(heard, one, f"inputs[{number}]", workspace)
        heard.facets += _facets(node, "input", one, "inputFacets", f"inputs[{number}].inputFacets")
        heard.edges.append(Edge(node, "ContributedTo", here))
    for number, one in enumerate(_list(document, "outputs")):
        node = _dataset(heard, one, f"outputs[{number}]", workspace)
        heard.facets += _facets(node, "output", one, "outputFacets", f"outputs[{number}].outputFacets")
        heard.edges.append(Edge(here, "Produced", node))


def _job(heard: Heard, job: dict[str, Any]) -> str:
    node = job_node(_text(job, "namespace", "job."), _text(job, "name", "job."))
    heard.facets.append(Facet(node, "job", SELF, {"namespace": job["namespace"], "name": job["name"]}))
    heard.facets += _facets(node, "job", job, "facets", "job.facets")
    return node


def _dataset(heard: Heard, one: Any, where: str, workspace: str) -> str:
    """A dataset with its facets, and with what it is the same as."""
    if not isinstance(one, dict):
        raise Invalid(f"{where} is not an object with namespace and name")
    node = dataset_node(_text(one, "namespace", f"{where}."), _text(one, "name", f"{where}."), workspace)
    heard.facets.append(Facet(node, "dataset", SELF, {"namespace": one["namespace"], "name": one["name"]}))
    facets = list(_facets(node, "dataset", one, "facets", f"{where}.facets"))
    heard.facets += facets
    for facet in facets:
        if facet.document.get("_deleted"):
            continue
        if facet.name == "mintmark":
            heard.edges += _same(node, [_ours(facet.document, where)])
        elif facet.name == "symlinks":
            heard.edges += _same(node, _symlinks(facet.document, where, workspace))
    return node


def _same(node: str, others: Iterable[str]) -> Iterator[Edge]:
    for other in others:
        if other != node:
            yield Edge(node, "SameAs", other)


def _ours(facet: dict[str, Any], where: str) -> str:
    """The version of ours that a `mintmark` facet names."""
    urn, version = facet.get("urn"), facet.get("version")
    node = f"{urn}@{version}"
    if type(version) is not int or identify(node).version is None or not _is_ours(node):
        raise Invalid(f'{where}.facets.mintmark names a version: {{"urn": "mm:dataset/census", "version": 1}}')
    return node


def _symlinks(facet: dict[str, Any], where: str, workspace: str) -> Iterator[str]:
    for number, one in enumerate(_list(facet, "identifiers")):
        place = f"{where}.facets.symlinks.identifiers[{number}]"
        if not isinstance(one, dict):
            raise Invalid(f"{place} is not an object with namespace and name")
        yield dataset_node(_text(one, "namespace", f"{place}."), _text(one, "name", f"{place}."), workspace)


def _facets(node: str, scope: str, of: dict[str, Any], key: str, where: str) -> Iterator[Facet]:
    found = of.get(key)
    if found is None:
        return
    if not isinstance(found, dict):
        raise Invalid(f"{where} is not an object")
    for name, document in found.items():
        if not isinstance(document, dict):
            raise Invalid(f"{where}.{name[:100]} is not an object")
        if name == SELF or len(name) > 200:
            raise Invalid(f"{where} has a facet whose name is empty or longer than 200 characters")
        yield Facet(node, scope, name, document)


def _parent(run: dict[str, Any]) -> str | None:
    """The run that this one is a part of; a facet that says something else is kept and means nothing here."""
    facets = run.get("facets")
    facet = facets.get("parent") if isinstance(facets, dict) else None
    try:
        return str(UUID(facet["run"]["runId"]))  # type: ignore[index]
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def _is_ours(node: str) -> bool:
    try:
        _URN.validate_python(identify(node).name)
    except ValidationError:
        return False
    return True


def _part(document: dict[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    if not isinstance(found, dict):
        raise Invalid(f"{key} is missing, or not an object")
    return found


def _list(document: dict[str, Any], key: str) -> list[Any]:
    found = document.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Invalid(f"{key} is not a list")
    return found


def _text(document: dict[str, Any], key: str, where: str = "") -> str:
    found = document.get(key)
    if not isinstance(found, str) or not found:
        raise Invalid(f"{where}{key} is missing, or not a text")
    return found


def _uuid(run: dict[str, Any], where: str) -> str:
    try:
        return str(UUID(_text(run, "runId", "run.")))
    except ValueError:
        raise Invalid(f"{where} is not a UUID") from None


def _moment(text: Any) -> datetime:
    """ISO 8601 with a time; one without a zone is UTC, as the client's own check lets it pass."""
    try:
        if not isinstance(text, str) or "t" not in text.lower():
            raise ValueError
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid("eventTime is missing, or not a time such as 2026-11-20T10:00:00Z") from None


def _bounded(prefix: str, name: str) -> str:
    """A node's name as an index can hold it; a longer one by its hash, with the name itself among its facets."""
    data = name.encode()
    return prefix + (name if len(data) <= LONGEST_NODE else sha256(data))


def _digest(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
