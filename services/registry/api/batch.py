"""Many at once: each item is answered with its own status, and one that is refused stops no other.

An Idempotency-Key holds for the batch as a whole: it is claimed before the first item, and the same batch is answered
the same again. Every item is idempotent by itself, too (a submission by its id, a pointer or tag by what it is
already), so that a batch whose answer was lost can be sent again under another key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from services.registry.api.metadata import TagKey, TagValue, Text
from services.registry.api.parts import PREFIX, Mover, MoveView, Reader, Reason, StandingView, Submitter
from services.registry.api.submissions import SubmissionView
from services.registry.handlers import Handlers
from services.registry.handlers.catalog import Wanted, asset_etag, version_etag
from services.registry.handlers.pointers import Expected, alias_etag
from services.registry.handlers.reading import LAST
from shared.db.database import on_first_transaction
from shared.errors import Invalid, MintmarkError, NotFound
from shared.events.base import Urn
from shared.events.upstream import AssetSubmitted
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

MOST = 500
Body = TypeVar("Body", bound=BaseModel)
Etag = Annotated[str, StringConstraints(max_length=200)]


class Ref(BaseModel):
    """A version by its number, or by an alias that points at it."""

    model_config = ConfigDict(extra="forbid")

    urn: Urn
    version: int | None = Field(default=None, ge=1, le=LAST)
    alias: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00]+$")] | None = None


class AliasItem(BaseModel):
    """An alias to point at a version, as PUT …/aliases/{alias} takes it."""

    model_config = ConfigDict(extra="forbid")

    urn: Urn
    alias: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")]
    version: int = Field(ge=1, le=LAST)
    reason: Reason
    if_match: Etag | None = None
    if_none_match: Etag | None = None


class TagsItem(BaseModel):
    """Tags of a version (of the asset where `version` is absent), as PATCH takes them; one that is null is removed."""

    model_config = ConfigDict(extra="forbid")

    urn: Urn
    version: int | None = Field(default=None, ge=1, le=LAST)
    description: Text | None = None
    tags: dict[TagKey, TagValue | None] = Field(default_factory=dict, max_length=1000)
    reason: Reason | None = None
    if_match: Etag | None = None


class Batch(BaseModel):
    """Items, each of the form that the route says; one of another form is refused by itself."""

    model_config = ConfigDict(extra="forbid")

    items: list[dict[str, Any]] = Field(min_length=1, max_length=MOST)


class ItemView(BaseModel):
    """What became of the item at this place: `body` is what the single call answers, `problem` why it was refused."""

    index: int
    status: int
    etag: str | None = None
    body: Any = None
    problem: dict[str, Any] | None = None


class BatchView(BaseModel):
    """One answer an item, in their order."""

    items: list[ItemView]
    done: int
    refused: int


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["batches"])

    @routes.post("/versions:batchGet")
    async def get_versions(batch: Batch, caller: Reader) -> BatchView:
        """Versions with everything next to them: `{"urn", "version"}` or `{"urn", "alias"}` each; one round trip to the
        database for the versions, one for the aliases."""
        on_first_transaction.set(None)  # a read is answered anew, whatever its key
        asked: dict[int, Ref] = {}
        answers: dict[int, ItemView] = {}
        for index, item in enumerate(batch.items):
            try:
                asked[index] = _ref(item)
            except MintmarkError as error:
                answers[index] = _refused(index, error)
        refs = [(ref.urn, ref.version, ref.alias) for ref in asked.values()]
        for index, found in zip(asked, await handlers.reading.many(caller, refs), strict=True):
            if found is None:
                named = asked[index].version or f"alias {asked[index].alias}"
                answers[index] = _refused(index, NotFound(f"there is no {asked[index].urn}@{named}"))
            else:
                body = StandingView.of(found)
                answers[index] = ItemView(index=index, status=200, etag=version_etag(found.version), body=body)
        return _batch([answers[index] for index in sorted(answers)])

    @routes.post("/submissions:batchCreate")
    async def submit(batch: Batch, caller: Submitter) -> BatchView:
        """Submissions, each as POST /submissions takes it."""

        async def one(event: AssetSubmitted) -> ItemView:
            view = SubmissionView.of(await handlers.registration.submit(caller, event))
            return ItemView(index=0, status=202, body=view)

        return await _each(handlers, caller, batch, AssetSubmitted, one)

    @routes.post("/aliases:batchCreate")
    async def set_aliases(batch: Batch, caller: Mover) -> BatchView:
        """Aliases, each with `urn`, `alias`, `version`, `reason`, and `if_match` or `if_none_match` as its header."""

        async def one(item: AliasItem) -> ItemView:
            expected = Expected(item.if_match, item.if_none_match)
            move = await handlers.pointers.set_alias(caller, item.urn, item.alias, item.version, item.reason, expected)
            etag = alias_etag(item.urn, item.alias, move)
            return ItemView(index=0, status=200, etag=etag, body=MoveView.of(item.urn, move))

        return await _each(handlers, caller, batch, AliasItem, one)

    @routes.post("/tags:batchCreate")
    async def set_tags(batch: Batch, caller: Submitter) -> BatchView:
        """Tags and descriptions, each with `urn`, `version` (or none, for the asset), `tags`, and `if_match`."""

        async def one(item: TagsItem) -> ItemView:
            wanted = Wanted(item.description, None, item.tags, item.reason or "")
            expected = Expected(item.if_match)
            if item.version is None:
                asset = await handlers.catalog.describe_asset(caller, item.urn, wanted, expected)
                tags, etag = asset.tags, asset_etag(asset)
            else:
                version = await handlers.catalog.describe_version(caller, item.urn, item.version, wanted, expected)
                tags, etag = version.tags, version_etag(version)
            body = {"urn": item.urn, "version": item.version, "tags": tags}
            return ItemView(index=0, status=200, etag=etag, body=body)

        return await _each(handlers, caller, batch, TagsItem, one)

    return routes


async def _each(
    handlers: Handlers, caller: Principal, batch: Batch, of: type[Body], one: Callable[[Body], Awaitable[ItemView]]
) -> BatchView:
    """Every item by itself, in order: what is done stays done, whatever becomes of the next."""
    await handlers.batches.claim(caller)
    reader: TypeAdapter[Body] = TypeAdapter(of)
    answers = []
    for index, item in enumerate(batch.items):
        try:
            answer = await one(_read(reader, item))
            answers.append(answer.model_copy(update={"index": index}))
        except MintmarkError as error:
            answers.append(_refused(index, error))
    return _batch(answers)


def _ref(item: dict[str, Any]) -> Ref:
    ref = _read(TypeAdapter(Ref), item)
    if (ref.version is None) == (ref.alias is None):
        raise Invalid("name one of version and alias")
    return ref


def _read(reader: TypeAdapter[Body], item: dict[str, Any]) -> Body:
    """Raises Invalid with the fields that are wrong."""
    try:
        return reader.validate_python(item)
    except ValidationError as error:
        found = [
            {"field": ".".join(map(str, one["loc"])), "reason": str(one["msg"]).removeprefix("Value error, ")}
            for one in error.errors()[:20]
        ]
        raise Invalid("; ".join(f"{one['field']}: {one['reason']}" for one in found[:3]), errors=found) from None


def _refused(index: int, error: MintmarkError) -> ItemView:
    problem = {"code": error.code, "detail": error.message, "status": error.status, **error.extra}
    return ItemView(index=index, status=error.status, problem=problem)


def _batch(answers: list[ItemView]) -> BatchView:
    refused = sum(answer.problem is not None for answer in answers)
    return BatchView(items=answers, done=len(answers) - refused, refused=refused)
