"""Licence, attributions, bill of material and scans of a version."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

from services.registry.api.parts import NO_NUL, PREFIX, Number, Reader
from services.registry.handlers import Handlers
from services.registry.handlers.supply import Judged
from services.registry.licences import bom, expressions
from services.registry.licences.expressions import Reading
from services.registry.licences.terms import Terms, table
from services.registry.scanning import Scan, Statement
from shared.events.base import Digest, Kind, Name
from shared.http.edge import StrictRoute

VERSION = "/assets/{kind}/{name}/versions/{number}"


class ReadingView(BaseModel):
    """A licence as it was written; `expression` is absent where it is not known, with what it may have meant."""

    written: str
    known: bool
    expression: str | None
    alternatives: list[list[str]]
    unknown: list[str]
    near: list[str]

    @classmethod
    def of(cls, reading: Reading) -> ReadingView:
        return cls(
            written=reading.written,
            known=reading.is_known,
            expression=reading.expression,
            alternatives=[[term.key for term in one] for one in reading.alternatives],
            unknown=list(reading.unknown),
            near=list(reading.near),
        )


class ObligationView(BaseModel):
    kind: str
    text: str
    licence: str
    node: str


class ConflictView(BaseModel):
    """`conflict` where the two licences cannot both be kept, `review` where a person has to judge; with the path."""

    kind: str
    severity: str
    licence: str
    reason: str
    path: list[str]


class GapView(BaseModel):
    """A part whose licence cannot be judged, and why."""

    node: str
    written: str | None
    reason: str
    near: list[str]


class LicenceView(BaseModel):
    """What a version is under, and what everything that it stands on asks of it."""

    urn: str
    version: int
    declared: ReadingView | None
    effective: str | None
    commercial: str
    derivatives: str
    obligations: list[ObligationView]
    conflicts: list[ConflictView]
    gaps: list[GapView]
    truncated: bool

    @classmethod
    def of(cls, judged: Judged) -> LicenceView:
        said, root = judged.judgement, judged.closure.root
        return cls(
            urn=root.urn,
            version=root.version,
            declared=ReadingView.of(said.declared) if said.declared else None,
            effective=said.effective,
            commercial=said.commercial,
            derivatives=said.derivatives,
            obligations=[
                ObligationView(kind=one.kind, text=one.text, licence=one.licence, node=one.node)
                for one in said.obligations
            ],
            conflicts=[
                ConflictView(
                    kind=one.kind,
                    severity=one.severity,
                    licence=one.licence,
                    reason=one.reason,
                    path=list(one.path),
                )
                for one in said.conflicts
            ],
            gaps=[
                GapView(node=gap.node, written=gap.written, reason=gap.reason, near=list(gap.near)) for gap in said.gaps
            ],
            truncated=judged.closure.truncated,
        )


class ScanView(BaseModel):
    """What the scanners said of some bytes; `verdict` is the worst of it."""

    digest: str
    format: str
    verdict: str
    statements: list[Statement]
    at: datetime

    @classmethod
    def of(cls, scan: Scan) -> ScanView:
        return cls(
            digest=scan.digest, format=scan.format, verdict=scan.verdict, statements=list(scan.statements), at=scan.at
        )


class InspectedView(BaseModel):
    """What was said of a version's bytes. `held_back` says why it may not go on, and is absent where it may."""

    format: str | None
    digest: str | None
    statements: list[Statement]
    at: datetime
    held_back: str | None


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["supply"])

    @routes.get(VERSION + "/licence")
    async def licence(kind: Kind, name: Name, number: Number, caller: Reader) -> LicenceView:
        """Declared and in effect: with what bases, datasets and prompts bring along, and what cannot be kept."""
        return LicenceView.of(await handlers.supply.licence(caller, f"mm:{kind}/{name}", number))

    @routes.get(VERSION + "/attribution", response_class=PlainTextResponse)
    async def attribution(kind: Kind, name: Name, number: Number, caller: Reader) -> PlainTextResponse:
        """The text that goes along with the version wherever it is passed on."""
        text = await handlers.supply.attribution(caller, f"mm:{kind}/{name}", number)
        headers = {"content-disposition": f'attachment; filename="{name}-{number}-ATTRIBUTION.txt"'}
        return PlainTextResponse(text, headers=headers)

    @routes.get(VERSION + "/bom")
    async def bill(kind: Kind, name: Name, number: Number, caller: Reader) -> Response:
        """CycloneDX 1.7 with a model card; the same bytes as long as nothing was said of the version."""
        document = await handlers.supply.bom(caller, f"mm:{kind}/{name}", number)
        return JSONResponse(document, media_type=bom.MEDIA_TYPE)

    @routes.get(VERSION + "/scan")
    async def inspected(kind: Kind, name: Name, number: Number, caller: Reader) -> InspectedView:
        """Who looked at the version's bytes, with which version and result; why it is held back, where it is."""
        found = await handlers.supply.inspected(caller, f"mm:{kind}/{name}", number)
        return InspectedView(
            format=found.artefact["format"] if found.artefact else None,
            digest=found.artefact["digest"] if found.artefact else None,
            statements=list(found.statements),
            at=found.at,
            held_back=found.held_back,
        )

    @routes.get("/artefacts/{digest}/scan")
    async def scan(digest: Digest, caller: Reader) -> ScanView:
        """What the scanners said of bytes that may hold pickles, whether they were registered or refused."""
        return ScanView.of(await handlers.supply.scan(caller, digest))

    @routes.get("/licences")
    async def licences(caller: Reader) -> list[Terms]:
        """The table: what each licence lets one do and asks, and where that was read."""
        return list(table().values())

    @routes.get("/licences/reading")
    async def reading(
        caller: Reader, expression: Annotated[str, Query(min_length=1, max_length=200, pattern=NO_NUL)]
    ) -> ReadingView:
        """How an expression is understood, before it is submitted."""
        return ReadingView.of(expressions.read(expression))

    return routes
