"""What another registry says of its experiments: runs with their metrics, logged models, and where their files lay."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from services.registry.domain.tracking import LAST_MS, Point
from services.registry.importers.documents import NO_NUL, Foreign, ForeignFile, Tags

Key = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=NO_NUL)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$")]
Location = Annotated[str, StringConstraints(max_length=2000, pattern=NO_NUL)]
Ms = Annotated[int, Field(ge=0, le=LAST_MS)]
Param = Annotated[str, StringConstraints(max_length=10_000, pattern=NO_NUL)]
Params = Annotated[dict[Key, Param], Field(max_length=2000)]
Infinite = Literal["NaN", "Infinity", "-Infinity"]


class ForeignPoint(Foreign):
    """One value of a metric; those that JSON has no number for are written out."""

    key: Key
    value: float | Infinite
    timestamp_ms: Ms
    step: int = Field(default=0, ge=-(2**63), lt=2**63)

    @property
    def point(self) -> Point:
        return Point(self.key, float(self.value), self.timestamp_ms, self.step)


class ForeignExperiment(Foreign):
    """Runs that belong together, known by name."""

    name: Name
    location: Location | None = None
    tags: Tags = Field(default={})
    created_at: AwareDatetime | None = None


class ForeignTag(Foreign):
    """A tag, as MLflow lists them."""

    key: Key
    value: Annotated[str, StringConstraints(max_length=10_000, pattern=NO_NUL)] = ""


class ForeignDataset(Foreign):
    """A data set that a run was given, by name and hash; the rest as it was logged."""

    name: Name
    digest: Name
    source_type: Annotated[str, StringConstraints(max_length=500, pattern=NO_NUL)] = ""
    source: Annotated[str, StringConstraints(max_length=65_535, pattern=NO_NUL)] = ""
    schema_: Annotated[str | None, StringConstraints(max_length=1_048_575, pattern=NO_NUL)] = Field(
        default=None, alias="schema"
    )
    profile: Annotated[str | None, StringConstraints(max_length=16_777_215, pattern=NO_NUL)] = None


class ForeignInput(Foreign):
    """One input of a run."""

    tags: tuple[ForeignTag, ...] = Field(default=(), max_length=100)
    dataset: ForeignDataset

    @property
    def document(self) -> dict[str, Any]:
        """As MLflow's clients read it."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class ForeignOutput(Foreign):
    """A logged model that a run made."""

    model_id: RunId
    step: int = Field(default=0, ge=-(2**63), lt=2**63)


class ForeignRun(Foreign):
    """One run under the id that it has there. While more of its metrics are to come, it is sent as one that runs."""

    id: RunId
    name: Annotated[str, StringConstraints(max_length=500, pattern=NO_NUL)] = ""
    status: Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
    user: Annotated[str, StringConstraints(max_length=250, pattern=NO_NUL)] = ""
    started_ms: Ms
    ended_ms: Ms | None = None
    tags: Tags = Field(default={})
    params: Params = Field(default={})
    inputs: tuple[ForeignInput, ...] = Field(default=(), max_length=200)
    model_inputs: tuple[RunId, ...] = Field(default=(), max_length=1000)
    model_outputs: tuple[ForeignOutput, ...] = Field(default=(), max_length=1000)
    metrics: tuple[ForeignPoint, ...] = Field(default=(), max_length=20_000)
    files: tuple[ForeignFile, ...] = Field(default=(), max_length=2000)


class ForeignModel(Foreign):
    """A logged model under the id that it has there."""

    id: RunId
    name: Name
    model_type: Annotated[str, StringConstraints(max_length=500, pattern=NO_NUL)] = ""
    source_run_id: Annotated[str, StringConstraints(max_length=100, pattern=NO_NUL)] = ""
    status: int = Field(default=2, ge=1, le=3)
    tags: Tags = Field(default={})
    params: Tags = Field(default={})
    metrics: tuple[ForeignPoint, ...] = Field(default=(), max_length=20_000)
    created_at: AwareDatetime | None = None
    files: tuple[ForeignFile, ...] = Field(default=(), max_length=2000)
