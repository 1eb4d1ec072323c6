"""What each event says of where an asset comes from and what hangs on it: edges and findings. Pure.

Nodes are named by what they are: `mm:model/x@3`, `run:17`, `evaluation:<id>`, `gate:<id>`, `approval:<id>`,
`waiver:<id>`, `deployment:<id>`, `group:<name>`, `prompt:<name>@<n>`. Edges carry SageMaker's association types: the
source ContributedTo, is AssociatedWith or the SameAs, or Produced the destination; the destination is DerivedFrom it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from services.registry.domain.assets import Version
from shared.events.base import AssetRef
from shared.events.deployer import DeployCompleted, DeployFailed, DeployWithdrawn
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import ApprovalDecided, ClassificationChanged, DatasetApproved, GateDecided, WaiverSigned
from shared.events.router import Arm, GroupMeasured
from shared.events.upstream import DatasetVersion, RunCompleted

Association = Literal["ContributedTo", "AssociatedWith", "DerivedFrom", "Produced", "SameAs"]
Arms = tuple[Arm, ...]


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`source` has this to do with `destination`; `until` where it did for a time.

    `properties` are true as long as the edge holds, as a version's role and weight in a group; others: another edge.
    """

    source: str
    association: str
    destination: str
    since: datetime | None = field(default=None, compare=False)
    until: datetime | None = field(default=None, compare=False)
    properties: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something said of a version, or of the whole asset where `version` is 0."""

    kind: str
    id: str
    urn: str
    version: int
    at: datetime
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What one event says of a run; `ended_at` where it says that the run is over."""

    id: str
    job: str
    state: str
    at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None


def node(version: AssetRef | DatasetVersion) -> str:
    """A version's name in the graph."""
    return f"{version.urn}@{version.version}"


def of_version(version: Version) -> Iterator[Edge]:
    """Where a new version comes from."""
    here, training = node(version.ref), version.training
    if training.run_id:
        yield Edge(f"run:{training.run_id}", "Produced", here)
        if training.dataset:
            yield Edge(node(training.dataset), "ContributedTo", f"run:{training.run_id}")
    if training.dataset:
        yield Edge(node(training.dataset), "ContributedTo", here)
    for base in training.base:
        yield Edge(base, "DerivedFrom", here)
    for prompt in version.content["prompts"]:
        yield Edge(f"{prompt['urn']}@{prompt['version']}", "ContributedTo", here)


def of_run(event: RunCompleted) -> Iterator[Edge]:
    """What a training run was fed; what it made names the run when it is submitted."""
    for dataset in event.datasets:
        yield Edge(node(dataset), "ContributedTo", f"run:{event.run_id}")


def run_of(event: RunCompleted) -> Run:
    """The run itself."""
    return Run(event.run_id, event.name, event.status, event.ended_at, event.started_at, event.ended_at)


def violation(event: RunCompleted, dataset: DatasetVersion, code: str, reason: str) -> Finding:
    """A run that was fed with what it may not be fed with, beside the dataset."""
    document = {"code": code, "reason": reason, "run_id": event.run_id, "name": event.name}
    name = f"{node(dataset)}/run:{event.run_id}"
    return Finding("violation", name, dataset.urn, dataset.version, event.ended_at, document)


def of_evaluation(event: EvalCompleted) -> tuple[list[Edge], Finding]:
    here = f"evaluation:{event.evaluation_id}"
    edges = [Edge(node(event.asset), "ContributedTo", here), Edge(node(event.golden_set), "ContributedTo", here)]
    document = event.model_dump(mode="json", exclude={"asset"})
    return edges, _finding("evaluation", str(event.evaluation_id), event.asset, event.ended_at, document)


def of_failed_evaluation(event: EvalFailed, at: datetime) -> tuple[list[Edge], Finding]:
    here = f"evaluation:{event.evaluation_id}"
    document = event.model_dump(mode="json", exclude={"asset"})
    finding = _finding("evaluation", str(event.evaluation_id), event.asset, at, document)
    return [Edge(node(event.asset), "ContributedTo", here)], finding


def of_gate(event: GateDecided) -> tuple[list[Edge], Finding]:
    here = f"gate:{event.gate_id}"
    edges = [Edge(node(event.asset), "AssociatedWith", here)]
    if event.evaluation_id:
        edges.append(Edge(f"evaluation:{event.evaluation_id}", "ContributedTo", here))
    document = event.model_dump(mode="json", exclude={"asset"})
    return edges, _finding("gate", str(event.gate_id), event.asset, event.decided_at, document)


def of_approval(event: ApprovalDecided) -> tuple[list[Edge], Finding]:
    document = event.model_dump(mode="json", by_alias=True, exclude={"asset"})
    finding = _finding("approval", str(event.approval_id), event.asset, event.decided_at, document)
    return [Edge(node(event.asset), "AssociatedWith", f"approval:{event.approval_id}")], finding


def of_dataset_approval(event: DatasetApproved) -> tuple[list[Edge], Finding]:
    """A dataset's approval has no id of its own; the version that it is about stands for it."""
    document = event.model_dump(mode="json", exclude={"asset"})
    finding = _finding("approval", node(event.asset), event.asset, event.decided_at, document)
    return [Edge(node(event.asset), "AssociatedWith", f"approval:{node(event.asset)}")], finding


def of_waiver(event: WaiverSigned, at: datetime) -> tuple[list[Edge], Finding]:
    document = event.model_dump(mode="json", exclude={"asset"})
    finding = _finding("waiver", str(event.waiver_id), event.asset, at, document)
    return [Edge(node(event.asset), "AssociatedWith", f"waiver:{event.waiver_id}")], finding


def of_classification(event: ClassificationChanged, at: datetime) -> tuple[list[Edge], Finding]:
    return [], Finding("classification", event.urn, event.urn, 0, at, event.model_dump(mode="json", exclude={"urn"}))


def of_deployment(event: DeployCompleted) -> tuple[list[Edge], Finding]:
    here = f"deployment:{event.deployment_id}"
    edges = [
        Edge(node(event.asset), "ContributedTo", here),
        Edge(f"approval:{event.approval_id}", "ContributedTo", here),
    ]
    document = event.model_dump(mode="json", exclude={"asset", "statement", "signature"})
    return edges, _finding("deployment", str(event.deployment_id), event.asset, event.completed_at, document)


def of_failed_deployment(event: DeployFailed, asset: AssetRef, at: datetime) -> tuple[list[Edge], Finding]:
    """A deployment that did not come to be has no node; it is shown beside the version."""
    document = event.model_dump(mode="json", exclude={"asset"})
    return [], _finding("deployment", str(event.request_id or event.event_id), asset, at, document)


def of_withdrawn_deployment(event: DeployWithdrawn) -> tuple[list[Edge], Finding]:
    """The newest word on the deployment. That the version was once in it stays true, so the edges stay."""
    document = event.model_dump(mode="json", exclude={"asset"})
    return [], _finding("deployment", str(event.deployment_id), event.asset, event.withdrawn_at, document)


def in_group(group: str, arm: Arm) -> Edge:
    properties = {"role": arm.role, "weight_bp": arm.weight_bp}
    return Edge(node(arm.asset), "AssociatedWith", f"group:{group}", properties=properties)


def of_arm(group: str, revision: int, arm: Arm, at: datetime, *, serves: bool) -> Finding:
    """A version's part in a group's traffic."""
    document = {"group": group, "revision": revision, "role": arm.role, "weight_bp": arm.weight_bp, "serves": serves}
    return _finding("group", f"{group}/{node(arm.asset)}", arm.asset, at, document)


def of_figures(event: GroupMeasured) -> Iterator[Finding]:
    """What each version did in a group's traffic. A shadow's copies answered nobody, so they are a word apart.

    Each is of the whole window and takes the place of the one before. It is no part of the lineage.
    """
    window = {"group": event.group, **event.model_dump(mode="json", include={"since", "until"})}
    for figures in event.figures:
        name = f"{event.group}/{node(figures.asset)}" + ("/shadow" if figures.role == "shadow" else "")
        document = {**window, **figures.model_dump(mode="json", exclude={"asset"})}
        yield _finding("live", name, figures.asset, event.until, document)


def with_champion(arms: Arms, after: AssetRef) -> Arms:
    """The arms once `after` is champion: the champion before leaves, the others keep their weights."""
    others = tuple(arm for arm in arms if arm.role != "champion" and arm.asset != after)
    challengers_bp = sum(arm.weight_bp for arm in others if arm.role == "challenger")
    return (Arm(asset=after, role="champion", weight_bp=max(10_000 - challengers_bp, 0)), *others)


def _finding(kind: str, name: str, asset: AssetRef, at: datetime, document: dict[str, Any]) -> Finding:
    return Finding(kind, name, asset.urn, asset.version, at, document)
