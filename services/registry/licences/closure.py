"""What a version stands on: its bases and theirs, the datasets and the prompts, with the way that leads to each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Relation = Literal["base", "dataset", "golden-set", "prompt"]
MOST_PARTS = 500


@dataclass(frozen=True, slots=True)
class Part:
    """A registered version, as far as licences and bills of material look at it."""

    urn: str
    version: int
    digest: str
    number: int
    content: dict[str, Any]
    description: str
    tags: dict[str, str]
    metrics: dict[str, float]
    author: str
    registered_at: datetime
    artefact_size: int | None

    @property
    def node(self) -> str:
        return f"{self.urn}@{self.version}"

    @property
    def kind(self) -> str:
        return str(self.content["kind"])

    @property
    def name(self) -> str:
        return self.urn.split("/", 1)[1]

    @property
    def licence(self) -> str | None:
        """What it is said to be under; a dataset says it in its manifest."""
        manifest = self.content.get("manifest") or {}
        return self.content.get("licence") or manifest.get("licence")


@dataclass(frozen=True, slots=True)
class Need:
    """What a part names as what it stands on. Without a version it is the newest of before the root."""

    relation: Relation
    urn: str
    version: int | None = None


def needs(part: Part) -> tuple[Need, ...]:
    """In the order in which the content names them."""
    training = part.content.get("training") or {}
    found = [Need("base", *_named(urn)) for urn in training.get("base", ())]
    if training.get("dataset"):
        found.append(Need("dataset", training["dataset"]["urn"], training["dataset"]["version"]))
    if part.content.get("golden_set"):
        found.append(Need("golden-set", part.content["golden_set"]["urn"], part.content["golden_set"]["version"]))
    found += [Need("prompt", prompt["urn"], prompt["version"]) for prompt in part.content.get("prompts", ())]
    return tuple(found)


def _named(base: str) -> tuple[str, int | None]:
    urn, _, version = base.partition("@")
    return urn, int(version) if version.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Step:
    """One edge on a path: the part, and what it is to the one before."""

    relation: Relation
    node: str


Path = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Reached:
    """A part and the shortest path to it."""

    part: Part
    path: Path


@dataclass(frozen=True, slots=True)
class Closure:
    """Everything that `root` stands on, nearest first. `missing` are named and not registered here."""

    root: Part
    reached: tuple[Reached, ...]
    missing: tuple[Path, ...]
    uses: tuple[tuple[str, str], ...]
    truncated: bool = False


def spoken(root: str, path: Path) -> str:
    """A path as one reads it: `mm:model/a@1 ← base mm:model/b@2`."""
    return " ← ".join([root, *(f"{step.relation} {step.node}" for step in path)])
