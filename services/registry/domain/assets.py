"""What an asset version is: its content and digest, its author and its stages. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

import orjson

from services.registry.errors import (
    AliasRefused,
    AuthorMismatch,
    AuthorUnproven,
    FormatMismatch,
    StageRefused,
    UnknownFormat,
)
from services.registry.scanning.statement import PICKLE_FORMATS
from shared.errors import Invalid, TooLarge
from shared.events.base import Actor, Artefact, AssetRef, Signature
from shared.events.names import name_of
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import AssetSubmitted, DatasetVersion, Manifest, Training
from shared.ids import digest_of, sha256

MODEL_FORMATS = ("lightgbm", "skops", "onnx")
OTHER_FORMATS = (
    *MODEL_FORMATS,
    "safetensors",
    "json",
    "jsonl",
    "yaml",
    "text",
    "jinja2",
    "csv",
    "parquet",
    "tar",
    "zip",
)

Stage = Literal["development", "staging", "production", "monitoring", "retired"]
MOST_BYTES = 400_000  # of a submission as JSON, so that the events about it fit into a Kafka record twice over

STAGES: tuple[Stage, ...] = get_args(Stage)


def author_of(claimed: str | None, proven: Actor, *, require_proof: bool) -> Actor:
    """Who wrote a submission: the proven author, whom a claim must name. Raises AuthorUnproven or AuthorMismatch."""
    if claimed is not None and not proven.proven:
        raise AuthorUnproven(f"author {claimed!r} is claimed without a proof; sign the event, or leave the author out")
    if claimed is not None and claimed != proven.id:
        raise AuthorMismatch(f"author {claimed!r} is claimed, but the proof is by {proven.id!r}")
    if require_proof and not proven.proven:
        raise AuthorUnproven("this registry takes no submission without a proof of its author; sign the event")
    return proven


def check_form(event: AssetSubmitted) -> None:
    """What can be said of a submission without looking anything up. Raises UnknownFormat, TooLarge or Invalid."""
    if event.kind == "dataset":
        if event.artefact is not None:
            raise Invalid("a dataset carries its files in its manifest, and no artefact")
    elif event.manifest is not None:
        raise Invalid(f"a {event.kind} carries no manifest; only a dataset does")
    if event.guardrails and event.kind != "model":
        raise Invalid(f"guardrails: only a model's bundle carries guards, not a {event.kind}; set them on its groups")
    formats = MODEL_FORMATS if event.kind == "model" else OTHER_FORMATS
    if event.kind not in ("prompt", "bundle"):
        formats = (*formats, *PICKLE_FORMATS)
    if event.artefact is not None and event.artefact.format not in formats:
        raise UnknownFormat(
            f"format {event.artefact.format!r} is not taken for a {event.kind}; take one of {', '.join(formats)}"
        )
    if event.title is not None and name_of(event.title) != event.name:
        raise Invalid(f"the name of {event.title[:100]!r} is {name_of(event.title)!r}, not {event.name!r}")
    size = len(event.model_dump_json())
    if size > MOST_BYTES:
        raise TooLarge(
            f"the submission has {size} bytes as JSON; {MOST_BYTES} is the most, so put fewer files into one dataset"
        )
    paths = [file.path for file in event.manifest.files] if event.manifest else []
    if len(set(paths)) != len(paths):
        raise Invalid("two files of the manifest have the same path")


@dataclass(frozen=True, slots=True)
class Material:
    """Bytes that a version rests on: the artefact, or one file of a dataset."""

    digest: str
    format: str
    size: int | None
    uri: str | None


def materials(event: AssetSubmitted) -> tuple[Material, ...]:
    """Everything that must be in the artefact store before the version may be registered, each digest once."""
    found: dict[str, Material] = {}
    if event.artefact is not None:
        artefact = event.artefact
        found[artefact.digest] = Material(artefact.digest, artefact.format, artefact.size, artefact.uri)
    for file in event.manifest.files if event.manifest else ():
        known = found.setdefault(file.digest, Material(file.digest, file.format, file.size, file.uri))
        if known.size != file.size:
            raise Invalid(f"{file.path} has the digest of another file but another size")
        if known.format != file.format:
            raise FormatMismatch(f"{file.path} has the digest of another file but another format")
    return tuple(found.values())


def without_uris(manifest: Manifest) -> Manifest:
    """The manifest as it is registered: where bytes came from is not part of what they are."""
    return manifest.model_copy(
        update={"files": tuple(file.model_copy(update={"uri": None}) for file in manifest.files)}
    )


def _manifest(manifest: Manifest) -> dict[str, Any]:
    """The manifest as part of the content; what it could not say before stands in it only where it says it."""
    document = without_uris(manifest).model_dump(mode="json")
    for field in ("columns", "consent", "revision"):
        if not document[field]:
            del document[field]
    return document


@dataclass(frozen=True, slots=True)
class Content:
    """What a version is. Its digest covers all of this and nothing else."""

    submitted: AssetSubmitted
    golden_set: DatasetVersion | None
    training: Training
    artefact_size: int | None

    @property
    def document(self) -> dict[str, Any]:
        """The content as the JSON that is kept and that the digest is made of."""
        event = self.submitted
        return {
            "urn": event.urn,
            "kind": event.kind,
            "artefact": {"digest": event.artefact.digest, "format": event.artefact.format} if event.artefact else None,
            "manifest": _manifest(event.manifest) if event.manifest else None,
            "task": event.task,
            "signature": event.signature.model_dump(mode="json"),
            "golden_set": self.golden_set.model_dump(mode="json") if self.golden_set else None,
            "training": self.training.model_dump(mode="json"),
            "prompts": [prompt.model_dump(mode="json") for prompt in event.prompts],
            "licence": event.licence,
            # Only where there are some: the digest of a version without any stays what it was before there could be.
            **({"guardrails": list(event.guardrails)} if event.guardrails else {}),
            **({"details": event.details.model_dump(mode="json")} if event.details else {}),
        }

    @property
    def digest(self) -> str:
        """Digest of the canonical content."""
        return digest_of(self.document)

    def draft(self, author: Actor, at: datetime) -> Draft:
        """The version that this content is about to become."""
        event = self.submitted
        return Draft(
            urn=event.urn,
            content=self.document,
            artefact_size=self.artefact_size,
            tags=event.tags,
            description=event.description,
            metrics=event.metrics,
            author=author,
            submission_id=event.submission_id,
            registered_at=at,
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """A version before it has its number. `version` and `registered_at` are given where another registry gave them."""

    urn: str
    content: dict[str, Any]
    artefact_size: int | None
    tags: dict[str, str]
    description: str
    metrics: dict[str, float]
    author: Actor
    submission_id: UUID
    registered_at: datetime
    version: int | None = None

    @property
    def digest(self) -> str:
        """Digest of the canonical content."""
        return digest_of(self.content)

    @property
    def artefact_digest(self) -> str | None:
        artefact = self.content["artefact"]
        return artefact["digest"] if artefact else None

    def numbered(self, title: str, version: int, number: int, digest: str) -> Version:
        """The version that it became."""
        return Version(
            ref=AssetRef(urn=self.urn, version=version, digest=digest),
            number=number,
            content=self.content,
            artefact_size=self.artefact_size,
            tags=self.tags,
            description=self.description,
            metrics=self.metrics,
            author=self.author,
            submission_id=self.submission_id,
            registered_at=self.registered_at,
            title=title,
            updated_at=self.registered_at,
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Where somebody says that a version's bytes are. They are not held here, and may be others tomorrow.

    So two versions with one source are two versions: `submission`, which is part of the content, tells them apart.
    """

    uri: str
    submission: UUID
    run_link: str | None = None
    model_id: str | None = None
    text_digest: str | None = None

    @property
    def document(self) -> dict[str, str]:
        """As the content holds it; what is not known is left out."""
        known = {
            "uri": self.uri,
            "submission": str(self.submission),
            "run_link": self.run_link,
            "model_id": self.model_id,
            "text_digest": self.text_digest,
        }
        return {name: value for name, value in known.items() if value is not None}


def sourced_digest(content: dict[str, Any]) -> str:
    """Digest of the canonical content of a version that is known by its source alone.

    It holds texts, nothings and empty lists under names in ASCII, and no number: for such, RFC 8785 is JSON with sorted
    keys, which a library in C writes ten times as fast (a test compares the two).
    """
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))


def sourced_content(
    urn: str,
    source: Source,
    *,
    run_id: str | None = None,
    artefact: dict[str, str] | None = None,
    signature: Signature | None = None,
) -> dict[str, Any]:
    """The content of a version that is known by its source; with `artefact`, where its bytes are held here, too."""
    kind = urn[3:].partition("/")[0]
    return {
        "urn": urn,
        "kind": kind,
        "artefact": artefact,
        "manifest": None,
        "task": None,
        "signature": (signature or Signature()).model_dump(mode="json"),
        "golden_set": None,
        "training": Training(run_id=run_id).model_dump(mode="json"),
        "prompts": [],
        "licence": None,
        "source": source.document,
    }


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset without its versions. `title` is what people call it, `name` what its URN says."""

    urn: str
    kind: str
    name: str
    title: str
    description: str
    tags: dict[str, str]
    last_version: int
    revision: int
    created_at: datetime
    updated_at: datetime
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One change of metadata: of a version, or of the asset where `version` is 0."""

    urn: str
    version: int
    revision: int
    field: str
    before: str | None
    after: str | None
    who: Actor
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version as it is kept; description and tags as they are now."""

    ref: AssetRef
    number: int
    content: dict[str, Any]
    artefact_size: int | None
    tags: dict[str, str]
    description: str
    metrics: dict[str, float]
    author: Actor
    submission_id: UUID
    registered_at: datetime
    title: str = ""
    revision: int = 0
    updated_at: datetime | None = None
    yanked_at: datetime | None = None

    @property
    def urn(self) -> str:
        return self.ref.urn

    @property
    def draft(self) -> Draft:
        """What it would be registered as, with its present description and tags."""
        return Draft(
            urn=self.ref.urn,
            content=self.content,
            artefact_size=self.artefact_size,
            tags=self.tags,
            description=self.description,
            metrics=self.metrics,
            author=self.author,
            submission_id=self.submission_id,
            registered_at=self.registered_at,
        )

    @property
    def undeployable(self) -> str | None:
        """Why a model can never be put where it serves; None where nothing is in its way, or where it is no model."""
        if self.content["kind"] != "model":
            return None
        if self.yanked_at is not None:
            return "it was yanked"
        if self.content["artefact"] is None:
            return "its bytes are not held here; only where they were said to be is known"
        return None

    @property
    def artefact(self) -> Artefact | None:
        artefact = self.content["artefact"]
        return Artefact(**artefact, size=self.artefact_size) if artefact else None

    @property
    def golden_set(self) -> DatasetVersion | None:
        return DatasetVersion.model_validate(self.content["golden_set"]) if self.content["golden_set"] else None

    @property
    def training(self) -> Training:
        return Training.model_validate(self.content["training"])

    def registered(self, submission_id: UUID) -> AssetRegistered:
        """The answer to a submission that this version is the outcome of."""
        return AssetRegistered(
            asset=self.ref,
            submission_id=submission_id,
            kind=self.content["kind"],
            title=self.title if self.title != self.ref.name else None,
            task=self.content["task"],
            details=self.content.get("details"),
            artefact=self.artefact,
            signature=Signature.model_validate(self.content["signature"]),
            golden_set=self.golden_set,
            training=self.training,
            prompts=tuple(AssetRef.model_validate(prompt) for prompt in self.content["prompts"]),
            guardrails=tuple(self.content.get("guardrails", ())),
            licence=self.content["licence"],
            tags=self.tags,
            author=self.author,
            registered_at=self.registered_at,
        )

    def dataset_registered(self) -> DatasetRegistered:
        return DatasetRegistered(
            asset=self.ref,
            manifest=Manifest.model_validate(self.content["manifest"]),
            author=self.author,
            registered_at=self.registered_at,
        )


def check_stage_move(before: str, after: str) -> None:
    """Any stage follows any other, but a retired version comes back through an early one. Raises StageRefused."""
    if before == after:
        raise StageRefused(f"the version is in {after} already")
    if before == "retired" and after not in ("development", "staging"):
        raise StageRefused("a retired version comes back through development or staging")


def check_alias(alias: str) -> None:
    """Names that mean a version by themselves cannot point at another one. Raises AliasRefused."""
    if alias.lower() == "latest" or re.fullmatch(r"[vV]?[0-9]+", alias):
        raise AliasRefused(f"{alias!r} cannot be an alias: it already names the newest or a numbered version")
