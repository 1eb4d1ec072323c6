"""Experiments, runs, metrics and logged models: what they are, and what a run that ended tells. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from services.registry.domain.lineage import Edge
from shared.errors import Invalid
from shared.events.base import Actor
from shared.events.names import name_of
from shared.events.upstream import DatasetVersion, RunCompleted

ENDED = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}
STATUSES = ("RUNNING", "SCHEDULED", *ENDED)
MODEL_STATUSES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}
RUN_NAME = "mlflow.runName"
LAST_MS = 253_402_300_799_999
"""The last millisecond of the calendar."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Runs that belong together. `id` is a number in this workspace; 0 is there from the beginning."""

    id: int
    name: str
    location: str | None
    tags: dict[str, str]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None

    @property
    def root(self) -> str:
        """Where files of its runs stand, as clients address them."""
        return self.location or f"mlflow-artifacts:/{self.id}"

    def check_active(self) -> None:
        if self.deleted_at is not None:
            raise Invalid(f"The experiment {self.id} must be in the 'active' state. Current state is deleted.")


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric."""

    key: str
    value: float
    timestamp_ms: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One try. Parameters are set once; tags and metrics come as it goes on."""

    run_id: str
    experiment: int
    name: str
    status: str
    user: str
    started_ms: int
    ended_ms: int | None
    tags: dict[str, str]
    params: dict[str, str]
    inputs: list[dict[str, Any]]
    model_inputs: list[str]
    model_outputs: list[dict[str, Any]]
    config: dict[str, Any] | None
    config_digest: str | None
    signer: Actor
    created_at: datetime
    deleted_at: datetime | None
    root: str
    metrics: tuple[Point, ...] = ()

    def check_active(self) -> None:
        if self.deleted_at is not None:
            raise Invalid(f"The run {self.run_id} must be in the 'active' state. Current state is deleted.")

    @property
    def location(self) -> str:
        return f"{self.root}/{self.run_id}/artifacts"

    def with_params(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """The parameters with more of them. Raises Invalid for one that has another value already."""
        for key, value in wanted.items():
            if self.params.get(key, value) != value:
                raise Invalid(
                    f"Changing param values is not allowed. Param with key='{key}' was already logged with "
                    f"value='{self.params[key][:100]}' for run ID='{self.run_id}'. Attempted logging new value "
                    f"'{value[:100]}'."
                )
        return {**self.params, **wanted}

    def completed(self, ended_ms: int) -> RunCompleted:
        """What is said of it when it ends; its name is that of the model that it is for, as far as it says."""
        config = self.config or {}
        return RunCompleted(
            run_id=self.run_id,
            name=name_of(config.get("name") or self.name or self.run_id),
            status=ENDED[self.status],
            commit=config.get("commit") or self.tags.get("mlflow.source.git.commit"),
            datasets=tuple(DatasetVersion.model_validate(dataset) for dataset in config.get("datasets", ())),
            parameters={**config.get("parameters", {}), **self.params},
            metrics={point.key: point.value for point in self.metrics if abs(point.value) < float("inf")},
            started_at=moment(self.started_ms),
            ended_at=moment(max(ended_ms, self.started_ms)),
        )

    def edges(self) -> Iterator[Edge]:
        """Datasets that were logged by name and hash, which need not be registered here."""
        for given in self.inputs:
            dataset = given["dataset"]
            if dataset.get("name") and dataset.get("digest"):
                source = f"dataset:{name_of(dataset['name'])}@{name_of(dataset['digest'])}"
                yield Edge(source, "ContributedTo", f"run:{self.run_id}")


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model that was logged; registering it makes it a version."""

    model_id: str
    experiment: int
    name: str
    model_type: str
    source_run_id: str
    status: int
    tags: dict[str, str]
    params: dict[str, str]
    created_at: datetime
    updated_at: datetime
    root: str
    metrics: tuple[Point, ...] = ()

    @property
    def location(self) -> str:
        return f"{self.root}/models/{self.model_id}/artifacts"


@dataclass(frozen=True, slots=True)
class File:
    """A file or, without a digest, a folder."""

    path: str
    digest: str | None = None
    size: int | None = None


def moment(ms: int) -> datetime:
    """The time of a client's milliseconds, kept within the calendar."""
    return datetime.fromtimestamp(min(max(ms, 0), LAST_MS) / 1000, UTC)


def checked_path(path: str) -> str:
    """A path below the root of all files. Raises Invalid for one that leads elsewhere or means another one."""
    plain = path[:4000]
    while (unquoted := unquote(plain)) != plain:  # whoever serves these files some day may do so, too
        plain = unquoted
    parts = [*path.split("/"), *plain.split("/")]
    if not path or len(path) > 2000 or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise Invalid(f"Invalid path: {path[:200]!r}")
    if any(ord(character) < 32 for character in path):
        raise Invalid("a path holds a control character")
    return path
