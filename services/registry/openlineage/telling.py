"""Our lineage as OpenLineage run events. Pure.

Every evaluation, gate, approval, waiver, deployment and change of a group is a run of a job of that kind; what it was
fed are its inputs, what it made its outputs. Such a run also gives out a dataset of its own node's name, so that a gate
is fed by the evaluation that it judged. A version that no run made is given out by a run of its registration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from services.registry.domain.graph import identify, label_of
from services.registry.domain.lineage import Edge
from services.registry.openlineage.heard import NAMESPACE
from services.registry.openlineage.store import Linked, Place

PRODUCER = "https://github.com/mintmark/mintmark"
SPEC = "https://openlineage.io/spec"
RUN_EVENT = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
TYPES = {"model": "MODEL", "vendor-model": "MODEL", "retriever": "MODEL", "reranker": "MODEL", "embedder": "MODEL"}
PROCESSES = ("run", "evaluation", "gate", "approval", "waiver", "deployment", "group")
ENDS = {"failed": "FAIL", "killed": "ABORT", "running": "RUNNING", "other": "OTHER"}
HEARD = "openlineage:"
"""What was heard by OpenLineage is not told by it: its events begin so."""


@dataclass(slots=True)
class Process:
    """A run in the making."""

    node: str
    inputs: dict[str, None] = field(default_factory=dict)
    outputs: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """One event of ours as OpenLineage events (none, where it says nothing that they have words for)."""

    place: Place
    events: list[dict[str, Any]]


def nodes_of(linked: Iterable[Linked]) -> set[str]:
    return {node for one in linked for node in (one.edge.source, one.edge.destination)}


def tell(workspace: str, linked: Sequence[Linked], facts: Mapping[str, dict[str, Any]]) -> list[Told]:
    """Each event's edges, in order, as what OpenLineage calls run events."""
    told = []
    for event_id, together in groupby(linked, key=lambda one: one.event_id):
        these = list(together)
        events = [] if event_id.startswith(HEARD) else _events(workspace, event_id, these, facts)
        told.append(Told(these[-1].place, events))
    return told


def _events(
    workspace: str, event_id: str, linked: list[Linked], facts: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    at = next((one.edge.since for one in linked if one.edge.since is not None), None)
    if at is None:
        return []
    processes = _processes([one.edge for one in linked])
    return [_event(workspace, event_id, process, at, facts) for process in processes]


def _processes(edges: list[Edge]) -> list[Process]:
    """The runs that the edges of one event are about."""
    found: dict[str, Process] = {}
    loose: list[Edge] = []
    for edge in edges:
        source, destination = _is_process(edge.source), _is_process(edge.destination)
        if destination:
            found.setdefault(edge.destination, Process(edge.destination)).inputs[edge.source] = None
        if source and not destination:
            found.setdefault(edge.source, Process(edge.source)).outputs[edge.destination] = None
        if not source and not destination and edge.association in ("ContributedTo", "DerivedFrom"):
            loose.append(edge)
    for edge in loose:
        maker = next((one for one in found.values() if edge.destination in one.outputs), None)
        if maker is None:
            maker = found.setdefault(edge.destination, Process(edge.destination))
            maker.outputs[edge.destination] = None
        maker.inputs[edge.source] = None
    for process in found.values():
        if _is_process(process.node) and identify(process.node).kind != "run":
            process.outputs[process.node] = None
    return list(found.values())


def _is_process(node: str) -> bool:
    return not node.startswith("mm:") and identify(node).kind in PROCESSES


def _event(
    workspace: str, event_id: str, process: Process, at: datetime, facts: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    namespace, it, fact = NAMESPACE + workspace, identify(process.node), facts.get(process.node, {})
    is_version = process.node.startswith("mm:")
    kind = "registration" if is_version else it.kind
    return {
        "eventType": "FAIL"
        if it.kind == "evaluation" and "code" in fact
        else ENDS.get(fact.get("state", ""), "COMPLETE"),
        "eventTime": at.isoformat().replace("+00:00", "Z"),
        "producer": PRODUCER,
        "schemaURL": RUN_EVENT,
        "run": {
            "runId": _run_id(namespace, process.node, event_id),
            "facets": {"mintmark": _facet("MintmarkRunFacet", **_words(process.node, event_id, fact))},
        },
        "job": {
            "namespace": namespace,
            "name": f"{kind}/{_about(process, fact)}",
            "facets": {
                "jobType": {
                    "_producer": PRODUCER,
                    "_schemaURL": f"{SPEC}/facets/2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
                    "processingType": "BATCH",
                    "integration": "MINTMARK",
                    "jobType": kind.upper(),
                }
            },
        },
        "inputs": [_dataset(namespace, node, facts) for node in sorted(process.inputs)],
        "outputs": [_dataset(namespace, node, facts) for node in sorted(process.outputs)],
    }


def _words(node: str, event_id: str, fact: Mapping[str, Any]) -> dict[str, Any]:
    words = {key: value for key, value in fact.items() if isinstance(value, str | int | float | bool)}
    return {"node": node, "eventId": event_id, "label": label_of(node, fact or None), "details": words}


def _about(process: Process, fact: Mapping[str, Any]) -> str:
    """What a job is named after: the asset, for a group its name, for a training run what was trained."""
    it = identify(process.node)
    if it.kind == "group":
        return it.name
    if it.kind == "run" and fact.get("job"):
        return str(fact["job"])
    named = [node for node in (*process.outputs, *process.inputs) if node.startswith("mm:")]
    ours = [node for node in named if not node.startswith("mm:dataset/")] or named
    return identify(ours[0]).name.partition("/")[2] if ours else it.kind


def _run_id(namespace: str, node: str, event_id: str) -> str:
    """A node's own id where that is a UUID; a group's changes are a run each."""
    it = identify(node)
    try:
        return str(UUID(it.name))
    except ValueError:
        name = f"{node}#{event_id}" if it.kind == "group" else node
        return str(uuid5(NAMESPACE_URL, f"{namespace}/{name}"))


def _dataset(namespace: str, node: str, facts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    it, facets = identify(node), {}
    if node.startswith("mm:"):
        facets["datasetType"] = {
            "_producer": PRODUCER,
            "_schemaURL": f"{SPEC}/facets/1-0-0/DatasetTypeDatasetFacet.json#/$defs/DatasetTypeDatasetFacet",
            "datasetType": TYPES.get(it.kind, it.kind.upper()),
        }
        if it.version is not None:
            facets["version"] = {
                "_producer": PRODUCER,
                "_schemaURL": f"{SPEC}/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
                "datasetVersion": str(it.version),
            }
            facets["mintmark"] = _facet("MintmarkDatasetFacet", urn=it.name, version=it.version)
    return {"namespace": namespace, "name": node, "facets": facets}


def _facet(name: str, **words: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{PRODUCER}/facets/{name}.json#/$defs/{name}", **words}
