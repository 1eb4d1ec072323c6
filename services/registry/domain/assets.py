"""What an asset version is: its content and digest, its author, its stages, and the terms that find it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from services.registry.errors import (
    AliasRefused,
    AuthorMismatch,
    AuthorUnproven,
    FormatMismatch,
    StageRefused,
    UnknownFormat,
)
from shared.errors import Invalid, TooLarge
from shared.events.base import Actor, Artefact, AssetRef, Signature
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
MOST_TEXT = 50_000  # characters that full text reads; Postgres' own limit for a tsvector is 1 MiB

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
    formats = MODEL_FORMATS if event.kind == "model" else OTHER_FORMATS
    if event.artefact is not None and event.artefact.format not in formats:
        raise UnknownFormat(
            f"format {event.artefact.format!r} is not taken for a {event.kind}; take one of {', '.join(formats)}"
        )
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
            "manifest": without_uris(event.manifest).model_dump(mode="json") if event.manifest else None,
            "task": event.task,
            "signature": event.signature.model_dump(mode="json"),
            "golden_set": self.golden_set.model_dump(mode="json") if self.golden_set else None,
            "training": self.training.model_dump(mode="json"),
            "prompts": [prompt.model_dump(mode="json") for prompt in event.prompts],
            "licence": event.licence,
        }

    @property
    def digest(self) -> str:
        """Digest of the canonical content."""
        return digest_of(self.document)


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version as it is kept."""

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
            task=self.content["task"],
            artefact=self.artefact,
            signature=Signature.model_validate(self.content["signature"]),
            golden_set=self.golden_set,
            training=self.training,
            prompts=tuple(AssetRef.model_validate(prompt) for prompt in self.content["prompts"]),
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


def terms_of(event: AssetSubmitted, author: Actor) -> Iterator[str]:
    """The exact terms that search finds a new version by; words are added where the text is parsed."""
    yield f"kind:{event.kind}"
    yield f"name:{event.name}"
    yield "stage:development"
    yield f"author:{author.id}"
    if event.task:
        yield f"task:{event.task}"
    if event.licence:
        yield f"licence:{event.licence}"
    for key, value in event.tags.items():
        yield tag_term(key, value)


def tag_term(key: str, value: str) -> str:
    """One tag as a term; as JSON, so that no two tags share one, and by its hash where an index could not hold it."""
    pair = json.dumps([key, value])
    return f"tag:{pair}" if len(pair) <= 300 else f"tag:{sha256(pair.encode())}"


def words_of(event: AssetSubmitted) -> str:
    """The text that full-text search reads."""
    parts: Iterable[str] = (
        event.name,
        re.sub(r"[._-]+", " ", event.name),
        event.description,
        event.task or "",
        event.licence or "",
        *(f"{key} {value}" for key, value in event.tags.items()),
    )
    return "\n".join(parts)[:MOST_TEXT]


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
