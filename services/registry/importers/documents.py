"""What another registry says of an asset and its versions, in the one form that every reader brings it into."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID, uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from services.registry.domain.assets import Source, Stage, sourced_content
from services.registry.domain.lineage import Association
from shared.events.base import LAST_VERSION, Actor, Digest, Kind, Signature, Title
from shared.events.names import name_of
from shared.ids import sha256

PROMPT_TEXT = "mlflow.prompt.text"
NAMESPACE = UUID("5e0d3c8e-6a0b-5d0a-9a39-2f6f0f6c1d07")
NO_NUL = r"^[^\x00]*$"

Id = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=NO_NUL)]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=NO_NUL)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]
Uri = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=NO_NUL)]
Tags = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=NO_NUL)],
        Annotated[str, StringConstraints(max_length=100_000, pattern=NO_NUL)],
    ],
    Field(max_length=1000),
]


class Foreign(BaseModel):
    """Part of a document. A field that is not known is an error: what was read must not be lost without a word."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class From(Foreign):
    """A source: what it speaks, and the name under which what came from it is known for good."""

    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    name: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.name}"

    def author(self, name: str | None) -> Actor:
        """Somebody whom the source names; nothing proves it."""
        return Actor(id=f"imported:{self.kind}/{name or 'unknown'}"[:200], proven=False)


class ForeignFile(Foreign):
    """A file of a version. Its bytes are held here; `path` is where it lay, and never becomes a path here."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=NO_NUL)]
    digest: Digest
    size: int = Field(ge=0)


class ForeignArtefact(Foreign):
    """The file that is served."""

    digest: Digest
    format: Annotated[str, StringConstraints(min_length=1, max_length=40)]


class ForeignSource(Foreign):
    """Where the source says that the version's bytes are."""

    uri: Uri
    run_link: Uri | None = None
    model_id: Short | None = None


class ForeignEdge(Foreign):
    """Something of the source that the version comes from."""

    node: Short
    association: Association = "ContributedTo"


def said(description: str, tags: dict[str, str]) -> dict[str, str]:
    """What is said, field by field; no description is none."""
    found = {f"tag:{key}": value for key, value in tags.items()}
    return found | {"description": description} if description else found


class ForeignVersion(Foreign):
    """One version. `id` names it at the source, `fingerprint` stands for what cannot change of it there."""

    id: Id
    fingerprint: Annotated[str, StringConstraints(min_length=8, max_length=80)]
    number: int | None = Field(default=None, ge=1, le=LAST_VERSION, description="without one it gets the next")
    registered_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None
    author: Short | None = None
    description: Text = ""
    tags: Tags = {}
    metrics: dict[Annotated[str, StringConstraints(min_length=1, max_length=250)], float] = Field(
        default={}, max_length=2000
    )
    source: ForeignSource | None = None
    run_id: Short | None = None
    artefact: ForeignArtefact | None = None
    files: tuple[ForeignFile, ...] = Field(default=(), max_length=2000)
    files_at: Uri | None = Field(default=None, description="`mlflow-artifacts:/…`, where clients look for the files")
    task: Annotated[str, StringConstraints(min_length=1, max_length=60)] | None = None
    licence: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    base: tuple[Title, ...] = Field(default=(), max_length=50, description="titles of models that it derives from")
    datasets: tuple[Title, ...] = Field(default=(), max_length=50)
    lineage: tuple[ForeignEdge, ...] = Field(default=(), max_length=200)
    signature: Signature = Signature()
    stage: Stage | None = None
    stage_at: AwareDatetime | None = None

    @property
    def key(self) -> str:
        """What the map knows it by."""
        return f"version {self.id}"

    @property
    def said(self) -> dict[str, str]:
        """What may change of it."""
        found = said(self.description, self.tags)
        if self.stage and self.stage != "development":  # where every version begins
            found["stage"] = self.stage
        return found

    def submission_id(self, source: From) -> UUID:
        """The same for the same version of the same source, however often it is read."""
        return uuid5(NAMESPACE, f"{source.key}\n{self.id}\n{self.fingerprint}")

    def content(self, urn: str, source: From) -> dict[str, Any]:
        """What the version's digest covers."""
        text = self.tags.get(PROMPT_TEXT)
        found = sourced_content(
            urn,
            Source(
                uri=self.source.uri if self.source else f"{source.kind}:{self.id}"[:2000],
                submission=self.submission_id(source),
                run_link=self.source.run_link if self.source else None,
                model_id=self.source.model_id if self.source else None,
                text_digest=sha256(text.encode()) if text is not None and urn.startswith("mm:prompt/") else None,
            ),
            run_id=self.run_id,
            artefact=self.artefact.model_dump() if self.artefact else None,
            signature=self.signature,
        )
        found["task"], found["licence"] = self.task, self.licence
        found["training"]["base"] = [f"mm:model/{name_of(title)}" for title in self.base]
        if self.source is None and self.artefact is not None and not self.files:
            del found["source"]  # bytes alone: the very version that submitting them makes
        elif self.files:
            found["source"]["files"] = [file.model_dump() for file in sorted(self.files, key=lambda file: file.path)]
        return found


class ForeignAsset(Foreign):
    """An asset with some of its versions. `aliases` come with the last of them."""

    id: Id
    kind: Kind = "model"
    title: Title
    description: Text = ""
    tags: Tags = {}
    created_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None
    versions: tuple[ForeignVersion, ...] = Field(default=(), max_length=500)
    aliases: dict[Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)], int] | None = Field(
        default=None, max_length=1000
    )

    @property
    def key(self) -> str:
        """What the map knows it by."""
        return f"asset {self.id}"

    @property
    def urn(self) -> str:
        return f"mm:{self.kind}/{name_of(self.title)}"

    @property
    def said(self) -> dict[str, str]:
        """What may change of it; aliases apart, which may be sent later."""
        return said(self.description, self.tags)
