"""Over HTTP: exports and archives of rows, the right to erasure, and the deletion of groups."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from services.router.api.groups import Body, IfMatch, Mover, Reason, expected
from services.router.api.inferences import Reader
from services.router.handlers.archives import Archives
from services.router.handlers.deletions import Deletion, Deletions
from services.router.handlers.erasures import Erasure, Erasures, Wish
from services.router.handlers.groups import By
from services.router.handlers.inferences import FIRST, LAST
from services.router.tables.filters import read_filters
from services.router.tables.store import Archive
from shared.errors import Malformed
from shared.events.base import Digest, Moment
from shared.http import Page, PageToken
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Eraser = Annotated[Principal, require("operate", "inference")]
Agreer = Annotated[Principal, require("approve", "group")]
PARQUET = "application/vnd.apache.parquet"
Token = Annotated[str | None, Query(max_length=500)]


class ArchiveView(BaseModel):
    """Rows of one day as Parquet; `digest` is the SHA-256 of the file, by which it stands in the artefact store."""

    id: UUID
    group: str
    day: date
    digest: Digest
    bytes: int
    row_count: int
    cause: str
    made_at: datetime

    @classmethod
    def of(cls, archive: Archive) -> ArchiveView:
        return cls(**{name: getattr(archive, name) for name in cls.model_fields})


class ErasureRequest(Body):
    """`subject` is the unit as it was sent, whatever field rules made of it; `where` names rows in its place, or
    narrows. Without `groups` all of the workspace's."""

    subject: str | None = Field(default=None, min_length=1, max_length=256)
    where: list[str] = Field(default=[], max_length=10)
    groups: list[Annotated[str, Field(max_length=48)]] | None = Field(default=None, min_length=1, max_length=1000)
    reason: str = Field(min_length=1, max_length=4000)


class ErasureView(BaseModel):
    """`receipt.payload` is what was removed of which group; `receipt.envelope` the same, signed (DSSE), null where the
    router has no signing key. `late_rows` were on their way at that time and removed when they came."""

    id: UUID
    at: datetime
    who: str
    reason: str
    late_rows: int
    receipt: dict[str, Any]

    @classmethod
    def of(cls, erasure: Erasure) -> ErasureView:
        return cls(**{name: getattr(erasure, name) for name in cls.model_fields})


class DeletionRequest(Body):
    """`confirm` is the group's name once more."""

    confirm: str = Field(max_length=48)
    reason: str = Field(min_length=1, max_length=4000)
    expected_revision: int | None = Field(default=None, ge=1)


class Word(Body):
    reason: Reason = ""


class DeletionView(BaseModel):
    """`state`: waiting for a second person, pending, kept or done. `row_count` is how many rows went."""

    group: str
    state: str
    policy: str
    reason: str
    asked_by: str
    asked_at: datetime
    agreed_by: str | None
    agreed_at: datetime | None
    kept_by: str | None
    done_at: datetime | None
    row_count: int | None

    @classmethod
    def of(cls, deletion: Deletion) -> DeletionView:
        return cls(**{name: getattr(deletion, name) for name in cls.model_fields})


def router(archives: Archives, erasures: Erasures, deletions: Deletions) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["inference tables"])

    @routes.get("/groups/{group}/inferences:export", response_class=StreamingResponse)
    async def export(
        group: str,
        caller: Reader,
        since: Moment = FIRST,
        until: Moment = LAST,
        where: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
    ) -> StreamingResponse:
        """Up to 1,000,000 rows as one Parquet file, oldest first, by the filters of a search."""
        chunks = await archives.export(caller.workspace, group, since, until, read_filters(where))
        return StreamingResponse(
            chunks,
            media_type=PARQUET,
            headers={"content-disposition": f'attachment; filename="{group}.parquet"'},
        )

    @routes.get("/groups/{group}/archives")
    async def list_archives(
        group: str, caller: Reader, max_results: Annotated[int, Query(ge=1, le=500)] = 100, page_token: Token = None
    ) -> Page[ArchiveView]:
        """The group's archives, oldest day first; of a deleted group too."""
        token = PageToken("archives", caller.workspace, group)
        after = token.read(page_token)
        bound = (date.fromisoformat(str(after[0])), UUID(str(after[1]))) if after else None
        found = await archives.listed(caller.workspace, group, bound, max_results + 1)
        items = [ArchiveView.of(one) for one in found[:max_results]]
        more = len(found) > max_results
        return Page(items=items, next_page_token=token.make([items[-1].day, items[-1].id]) if more else None)

    @routes.get("/archives/{archive_id}")
    async def get_archive(archive_id: UUID, caller: Reader) -> ArchiveView:
        """One archive."""
        return ArchiveView.of(await archives.one(caller.workspace, archive_id))

    @routes.get("/archives/{archive_id}/content", response_class=StreamingResponse)
    async def content(archive_id: UUID, caller: Reader) -> StreamingResponse:
        """The Parquet file."""
        archive = await archives.one(caller.workspace, archive_id)
        headers = {"content-length": str(archive.bytes), "etag": f'"{archive.digest}"'}
        return StreamingResponse(archives.content(archive), media_type=PARQUET, headers=headers)

    @routes.get("/archives/{archive_id}/rows")
    async def archived_rows(
        archive_id: UUID,
        caller: Reader,
        max_results: Annotated[int, Query(ge=1, le=500)] = 50,
        page_token: Token = None,
    ) -> Page[dict[str, Any]]:
        """Rows of an archive, oldest first, with the columns of the table; the file is verified by its digest first."""
        token = PageToken("archive", caller.workspace, archive_id)
        place = token.read(page_token)
        after = _place(place)
        found = await archives.rows(caller.workspace, archive_id, after, max_results + 1)
        more = len(found) > max_results
        return Page(items=found[:max_results], next_page_token=token.make([after + max_results]) if more else None)

    @routes.post("/erasures", status_code=201)
    async def erase(body: ErasureRequest, caller: Eraser, response: Response) -> ErasureView:
        """Remove a subject's rows, the words about them and their copies in archives; what is still on its way to a
        table goes when it comes. The receipt names the subject only by a salted hash."""
        wish = Wish(body.subject, read_filters(body.where), tuple(body.groups) if body.groups else None, body.reason)
        erasure = await erasures.erase(caller.workspace, caller.actor, wish)
        response.headers["location"] = f"/router/v1/erasures/{erasure.id}"
        return ErasureView.of(erasure)

    @routes.get("/erasures/{erasure_id}")
    async def get_erasure(erasure_id: UUID, caller: Reader) -> ErasureView:
        """What was erased on whose word, and the receipt."""
        return ErasureView.of(await erasures.one(caller.workspace, erasure_id))

    @routes.post("/groups/{group}:delete", status_code=202)
    async def delete(group: str, body: DeletionRequest, caller: Mover, if_match: IfMatch = None) -> DeletionView:
        """Retire the group: it takes no requests from now on. Its rows are archived and then go; or, where its settings
        say `at_deletion: drop`, they go when a second person agrees."""
        by = By(caller.workspace, caller.actor, body.reason, expected(if_match, body.expected_revision))
        return DeletionView.of(await deletions.ask(by, group, body.confirm))

    @routes.get("/groups/{group}/deletion")
    async def get_deletion(group: str, caller: Reader) -> DeletionView:
        """How far the group's deletion is; also when it is done."""
        return DeletionView.of(await deletions.one(caller.workspace, group))

    @routes.post("/groups/{group}:agree-to-deletion")
    async def agree(group: str, caller: Agreer, body: Word | None = None) -> DeletionView:
        """The second person's word, without which rows that no archive keeps stay."""
        return DeletionView.of(await deletions.agree(By(caller.workspace, caller.actor), group))

    @routes.post("/groups/{group}:keep")
    async def keep(group: str, caller: Mover, body: Word | None = None) -> DeletionView:
        """Take a deletion back before it is done; the group serves again."""
        return DeletionView.of(await deletions.keep(By(caller.workspace, caller.actor), group))

    return routes


def _place(token: list[Any] | None) -> int:
    if token is None:
        return 0
    if len(token) != 1 or not isinstance(token[0], int) or token[0] < 0:
        raise Malformed("page_token is not one that was given out here; start without it")
    return token[0]
