"""Foreign documents: proposed, corrected, accepted; and mappings that are kept for the next of their kind."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.registry.api.parts import PREFIX, Number, Reader, Size, Submitter, Token
from services.registry.foreign.fields import Field as Mapped
from services.registry.foreign.proposal import Mapping, Proposal, Rule
from services.registry.handlers import Handlers
from services.registry.handlers.foreign import Accepted
from shared.errors import Invalid
from shared.events.base import Kind, Name
from shared.http import Page, PageToken
from shared.http.edge import StrictRoute

LAST_ID = UUID(int=2**128 - 1)
Text = Annotated[str, StringConstraints(min_length=1, max_length=4_000, pattern=r"^[^\x00]+$")]
ANY_JSON = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


class ProposalView(BaseModel):
    """What a document would become, field by field with its reason; `unmapped` is what is left, by JSON pointer."""

    proposal_id: UUID
    document: str
    shape: str
    mapping: str | None
    fields: list[Mapped]
    unmapped: dict[str, Any]
    notes: list[str]
    made_by: str
    made_at: datetime
    urn: str | None
    version: int | None
    accepted_at: datetime | None

    @classmethod
    def of(cls, found: Proposal) -> ProposalView:
        return cls(
            proposal_id=found.id,
            document=found.document,
            shape=found.shape,
            mapping=found.mapping,
            fields=list(found.fields),
            unmapped=found.unmapped,
            notes=list(found.notes),
            made_by=found.made_by,
            made_at=found.made_at,
            urn=found.urn,
            version=found.version,
            accepted_at=found.accepted_at,
        )


class Correction(BaseModel):
    """One field: what stands at `source`, or `value`; with neither it is left out."""

    model_config = ConfigDict(extra="forbid")

    field: Text
    source: Annotated[str, StringConstraints(max_length=4_000)] | None = None
    value: Any = None


class Corrections(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fields: list[Correction] = Field(min_length=1, max_length=1_000)


class Acceptance(BaseModel):
    """`keep_as` keeps what was corrected as a mapping, for the next document of the same structure."""

    model_config = ConfigDict(extra="forbid")

    keep_as: Name | None = None


class AcceptedView(BaseModel):
    """The version; absent while its bytes are being fetched, which `submission_id` follows."""

    proposal_id: UUID
    urn: str
    version: int | None
    submission_id: UUID
    mapping: str | None

    @classmethod
    def of(cls, accepted: Accepted) -> AcceptedView:
        return cls(**{name: getattr(accepted, name) for name in cls.model_fields})


class MappingView(BaseModel):
    name: str
    shape: str
    rules: list[Rule]
    made_by: str
    made_at: datetime

    @classmethod
    def of(cls, mapping: Mapping) -> MappingView:
        return cls(
            name=mapping.name,
            shape=mapping.shape,
            rules=list(mapping.rules),
            made_by=mapping.made_by,
            made_at=mapping.made_at,
        )


class ImportsView(BaseModel):
    """What a version's foreign documents held beside what the version itself says: charts, and what was not mapped."""

    urn: str
    version: int
    charts: dict[str, Any]
    extra: dict[str, Any]
    imports: list[ProposalView]


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["foreign"])
    _proposals(routes, handlers)
    _mappings(routes, handlers)
    return routes


def _proposals(routes: APIRouter, handlers: Handlers) -> None:
    foreign = handlers.foreign

    @routes.post("/foreign", status_code=201, openapi_extra=ANY_JSON)
    async def propose(
        request: Request, caller: Submitter, mapping: Annotated[Name | None, Query()] = None, ask: bool = True
    ) -> ProposalView:
        """Any JSON about a model. Nothing is registered yet; `ask=false` leaves the model out, and uses rules alone."""
        return ProposalView.of(await foreign.propose(caller, await request.body(), mapping, ask=ask))

    @routes.get("/foreign")
    async def proposals(caller: Reader, page_size: Size = 50, page_token: Token = None) -> Page[ProposalView]:
        """Newest first."""
        token = PageToken("foreign", caller.workspace)
        before = _id_of(token.read(page_token))
        found = await foreign.listed(caller, before, page_size + 1)
        more = token.make([str(found[page_size - 1].id)]) if len(found) > page_size else None
        return Page(items=[ProposalView.of(one) for one in found[:page_size]], next_page_token=more)

    @routes.get("/foreign/{proposal_id}")
    async def proposal(proposal_id: UUID, caller: Reader) -> ProposalView:
        return ProposalView.of(await foreign.one(caller, proposal_id))

    @routes.patch("/foreign/{proposal_id}")
    async def correct(proposal_id: UUID, body: Corrections, caller: Submitter) -> ProposalView:
        """Single fields: from another place of the document, with a value of your own, or left out."""
        corrections = [Rule(field=one.field, source=one.source, value=one.value) for one in body.fields]
        return ProposalView.of(await foreign.correct(caller, proposal_id, corrections))

    @routes.post("/foreign/{proposal_id}:accept", status_code=201)
    async def accept(proposal_id: UUID, caller: Submitter, body: Acceptance | None = None) -> AcceptedView:
        """Register it as a version."""
        return AcceptedView.of(await foreign.accept(caller, proposal_id, body.keep_as if body else None))

    @routes.get("/assets/{kind}/{name}/versions/{number}/imports")
    async def imports(kind: Kind, name: Name, number: Number, caller: Reader) -> ImportsView:
        """Charts of a version that was imported, and everything of its documents that was not mapped."""
        urn = f"mm:{kind}/{name}"
        found = await foreign.of_version(caller, urn, number)
        charts = {key: chart for one in found for key, chart in one.group("charts").items()}
        extra = {pointer: value for one in found for pointer, value in one.unmapped.items()}
        views = [ProposalView.of(one) for one in found]
        return ImportsView(urn=urn, version=number, charts=charts, extra=extra, imports=views)


def _mappings(routes: APIRouter, handlers: Handlers) -> None:
    @routes.get("/mappings")
    async def mappings(caller: Reader) -> list[MappingView]:
        """Every mapping that was kept, by name."""
        return [MappingView.of(one) for one in await handlers.foreign.mappings(caller)]

    @routes.get("/mappings/{name}")
    async def mapping(name: Name, caller: Reader) -> MappingView:
        return MappingView.of(await handlers.foreign.mapping(caller, name))

    @routes.delete("/mappings/{name}", status_code=204)
    async def forget(name: Name, caller: Submitter) -> None:
        await handlers.foreign.forget(caller, name)


def _id_of(values: list[Any] | None) -> UUID:
    """The id that a page continues below. Raises Invalid for a token that was made up."""
    if values is None:
        return LAST_ID
    try:
        (text,) = values
        return UUID(text)
    except (ValueError, TypeError, AttributeError):
        raise Invalid("page_token is not one that was given out here; start without it") from None
