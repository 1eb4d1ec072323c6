"""Datasets over HTTP: /registry/v1/datasets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from services.registry.api.parts import NO_NUL, PREFIX, At, Number, Reader, Reason, Submitter
from services.registry.api.submissions import SubmissionView
from services.registry.datasets.croissant import Split
from services.registry.datasets.handlers import Datasets, Governed
from services.registry.datasets.store import Mark
from shared.events.base import Actor, Name
from shared.events.upstream import Manifest
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Approver = Annotated[Principal, require("approve", "asset")]


class MarkView(BaseModel):
    """A golden lock (`what` is golden) or a legal hold: whether it holds since `at`, by whose word and why."""

    what: str
    revision: int
    holds: bool
    who: Actor
    reason: str
    at: datetime

    @classmethod
    def of(cls, mark: Mark) -> MarkView:
        return cls(
            what=mark.what, revision=mark.revision, holds=mark.holds, who=mark.who, reason=mark.reason, at=mark.at
        )


class MarkRequest(BaseModel):
    """Whether it shall hold from now on, and why."""

    holds: bool
    reason: Reason


class SplitView(BaseModel):
    """A split's rows as they were counted; `exact` is false where distinct rows were estimated from a sample."""

    split: str
    rows: int
    distinct: int
    exact: bool
    counted_at: datetime


class RetentionView(BaseModel):
    """`state`: kept, released (not to be had any more), erased (gone, see the receipt)."""

    state: Literal["kept", "released", "erased"]
    expires_at: datetime | None
    released_at: datetime | None
    erased_at: datetime | None
    receipt: dict[str, Any] | None


class DatasetView(BaseModel):
    """A dataset version and everything that was decided and found about it."""

    urn: str
    version: int
    digest: str
    manifest: Manifest
    approval: dict[str, Any] | None
    golden: MarkView | None
    hold: MarkView | None
    retention: RetentionView
    counting: str
    counting_error: str | None
    splits: list[SplitView]
    overlaps: list[dict[str, Any]]
    violations: list[dict[str, Any]]
    trained_on_it: list[str]

    @classmethod
    def of(cls, found: Governed) -> DatasetView:
        def said(kind: str) -> list[dict[str, Any]]:
            return [finding.document for finding in found.findings if finding.kind == kind]

        keeping = found.keeping
        state, error = found.work.get("rows", ("waiting", None))
        return cls(
            urn=found.version.ref.urn,
            version=found.version.ref.version,
            digest=found.version.ref.digest,
            manifest=found.manifest,
            approval=next(iter(said("approval")), None),
            golden=MarkView.of(found.golden) if found.golden else None,
            hold=MarkView.of(found.hold) if found.hold else None,
            retention=RetentionView(
                state="erased" if keeping.erased_at else "released" if keeping.released_at else "kept",
                expires_at=keeping.expires_at,
                released_at=keeping.released_at,
                erased_at=keeping.erased_at,
                receipt=keeping.receipt,
            ),
            counting=state,
            counting_error=error,
            splits=[
                SplitView(
                    split=one.split, rows=one.rows, distinct=one.distinct, exact=not one.halvings, counted_at=one.at
                )
                for one in found.counted
            ],
            overlaps=said("overlap"),
            violations=said("violation"),
            trained_on_it=found.trained_on,
        )


class BytesView(BaseModel):
    """Bytes of a version; those that something else rests on stay."""

    digest: str
    size: int | None
    stays: bool


class GoingView(BaseModel):
    """A version whose time is over."""

    urn: str
    version: int
    expired_at: datetime | None
    files: list[BytesView]


class ImportedView(BaseModel):
    """The manifest that was read, what of the description it does not hold, and what became of it (null: a dry run)."""

    manifest: Manifest
    notes: list[str]
    submission: SubmissionView | None


def router(datasets: Datasets) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["datasets"])
    one_version = "/datasets/{name}/versions/{number}"

    @routes.get(one_version)
    async def dataset(name: Name, number: Number, caller: Reader) -> DatasetView:
        """Manifest, approval, lock and hold, retention, counted rows and those that stand in two splits."""
        return DatasetView.of(await datasets.one(caller, f"mm:dataset/{name}", number))

    @routes.get(one_version + "/log")
    async def log(name: Name, number: Number, caller: Reader) -> list[MarkView]:
        """Every lock and hold, newest first."""
        return [MarkView.of(mark) for mark in await datasets.log(caller, f"mm:dataset/{name}", number)]

    @routes.put(one_version + "/golden")
    async def golden(name: Name, number: Number, caller: Approver, wanted: MarkRequest) -> MarkView:
        """Lock a golden set, so that nothing may be trained on it; another person unlocks it."""
        made = await datasets.mark(caller, f"mm:dataset/{name}", number, "golden", wanted.holds, wanted.reason)
        return MarkView.of(made)

    @routes.put(one_version + "/hold")
    async def hold(name: Name, number: Number, caller: Approver, wanted: MarkRequest) -> MarkView:
        """A legal hold: while it holds, retention ends nothing of this version."""
        made = await datasets.mark(caller, f"mm:dataset/{name}", number, "hold", wanted.holds, wanted.reason)
        return MarkView.of(made)

    @routes.get(one_version + "/croissant")
    async def croissant(name: Name, number: Number, caller: Reader) -> JSONResponse:
        """The version as Croissant 1.1 (JSON-LD)."""
        found = await datasets.as_croissant(caller, f"mm:dataset/{name}", number)
        return JSONResponse(found, media_type="application/ld+json")

    @routes.get("/datasets:retention")
    async def retention(caller: Reader, at: At = None) -> list[GoingView]:
        """A dry run: whose time is over, now or at a moment, and what would go. Nothing is changed."""
        return [
            GoingView(
                urn=one.expired.urn,
                version=one.expired.version,
                expired_at=one.expired.expires_at,
                files=[BytesView(digest=file.digest, size=file.size, stays=file.shared) for file in one.bytes],
            )
            for one in await datasets.going(caller, at)
        ]

    @routes.post("/datasets:importCroissant", status_code=202)
    async def import_croissant(
        caller: Submitter,
        document: Annotated[dict[str, Any], Body()],
        name: Name | None = None,
        split: Split = "train",
        label: Annotated[str | None, Query(min_length=1, max_length=200, pattern=NO_NUL)] = None,
        submission_id: UUID | None = None,
        dry_run: bool = False,
    ) -> ImportedView:
        """A dataset version from a Croissant description; `split` is for files whose names say none."""
        made = await datasets.from_croissant(
            caller, document, name=name, split=split, label=label, submission_id=submission_id, dry_run=dry_run
        )
        return ImportedView(
            manifest=made.read.manifest,
            notes=list(made.read.notes),
            submission=SubmissionView.of(made.submission) if made.submission else None,
        )

    return routes
