"""Search: filters, words, meaning and questions in plain words, in one endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from services.registry.api.parts import NO_NUL, PREFIX, Reader, Size, Token, VersionView, version_fields
from services.registry.domain.assets import Stage
from services.registry.handlers import Handlers
from services.registry.handlers.reading import LAST_NUMBER
from services.registry.handlers.searching import Answer, Result
from services.registry.search import facets, ordering
from services.registry.search.asked import Asked, Mode
from services.registry.search.asking import Is, Question, both
from services.registry.search.facts import keyed
from services.registry.search.grammar import LONGEST, parse
from services.registry.search.ordering import NEWEST, Row
from services.registry.search.phrasing import Understood
from shared.errors import Invalid
from shared.events.base import Kind
from shared.http import Page, PageToken
from shared.http.edge import StrictRoute

Term = Annotated[str | None, Query(min_length=1, max_length=200, pattern=NO_NUL)]
KNOWN = {
    "q", "filter", "mode", "order_by", "facets", "kind", "name", "stage", "task", "licence", "author", "page_size",
    "page_token",
}  # fmt: skip
MOST_TAGS = 20
RELEVANCE = "relevance"


class WhyView(BaseModel):
    """Why a version was found: the comparisons of the filter that it fits, the stems of `q` that stand in its text, a
    snippet of it, and how near its meaning is to `q` (1 is the same)."""

    fits: list[str]
    words: list[str]
    snippet: str | None
    similarity: float | None


class FoundView(VersionView):
    """A version that was found."""

    why: WhyView


class ValueView(BaseModel):
    """A value, and how many of the versions found have it."""

    value: str
    count: int


class FacetView(BaseModel):
    """The values of a field, the most common first; `whole` when all were counted and not its most common alone."""

    values: list[ValueView]
    whole: bool


class UnderstoodView(BaseModel):
    """What a question was understood as: ask with these parameters to correct it. `by` rules, or a group's model."""

    filter: str
    q: str
    order_by: str
    mode: str
    by: str


class SearchPage(Page[FoundView]):
    """A page of what was found.

    `total` counts all of it; `complete` is false while what was written a moment ago is not all in the index; `notes`
    says what else is missing. With `mode=semantic` or `hybrid` the first 1,000 by rank are what was found.
    """

    total: int
    complete: bool
    notes: list[str]
    facets: dict[str, FacetView]
    understood_as: UnderstoodView | None = Field(default=None)


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["search"])

    @routes.get("/search", response_model=SearchPage)
    async def search(
        request: Request,
        caller: Reader,
        q: Annotated[str, Query(max_length=1000, pattern=NO_NUL)] = "",
        filter: Annotated[str, Query(max_length=LONGEST + 1)] = "",
        mode: Mode | Literal["question"] = "text",
        order_by: Annotated[str | None, Query(max_length=300, pattern=NO_NUL)] = None,
        facets: Annotated[str | None, Query(max_length=1000, pattern=NO_NUL)] = None,
        kind: Kind | None = None,
        stage: Stage | None = None,
        name: Term = None,
        task: Term = None,
        licence: Term = None,
        author: Term = None,
        page_size: Size = 50,
        page_token: Token = None,
    ) -> Response:
        """Versions that fit everything that is asked: `filter`, words in `q`, fields, and tags as `tag.<key>=<value>`.

        `mode`: `text` wants every word of `q`, newest first; `semantic` ranks by meaning, `hybrid` by words, too;
        `question` takes `q` for a question in plain words. `order_by`: name, version, created, updated,
        `metrics.<name>`, `measures.<name>` with ASC or DESC, or relevance. `facets`: kind, stage, tags.<key>, … or
        usual.
        """
        understood: Understood | None = None
        if mode == "question":
            understood = await handlers.searching.understood(caller, q)
        fields = {"kind": kind, "stage": stage, "name": name, "task": task, "licence": licence, "author": author}
        given = {field: value for field, value in fields.items() if value is not None}
        tags = _tags(request)
        asked = _asked(understood, q, filter, mode, order_by, facets, [Is(of, (value,)) for of, value in given.items()])
        asked = _with(asked, [Is(keyed("tag", key), (value,)) for key, value in tags])
        token = PageToken("search", caller.workspace, q, filter, mode, order_by, sorted(given.items()), sorted(tags))
        answer = await handlers.searching.search(caller, asked, _row(token, page_token), page_size)
        return Response(_page(answer, token, understood), media_type="application/json")

    return routes


def _asked(
    understood: Understood | None,
    q: str,
    filter: str,
    mode: str,
    order_by: str | None,
    wanted: str | None,
    more: list[Is],
) -> Asked:
    """What is asked; what a question was understood as stands beside the filter. Raises Invalid."""
    parts: list[Question] = [parse(filter), *more]
    order = order_by or ""
    if understood is not None:
        parts.insert(0, parse(understood.filter))
        q, mode, order = understood.q, understood.mode, order or understood.order_by
    relevance = order.strip().lower() == RELEVANCE
    ranks: Mode = "semantic" if mode == "semantic" else "hybrid" if mode == "hybrid" else "text"
    if order and not relevance and ranks != "text" and q:
        raise Invalid(f"{ranks} search comes by relevance; leave order_by out, or take mode=text")
    return Asked(
        both(*parts), q, ranks, NEWEST if relevance else ordering.read_order(order), relevance,
        facets.read_facets(wanted),
    )  # fmt: skip


def _with(asked: Asked, more: list[Is]) -> Asked:
    return Asked(both(asked.filter, *more), asked.words, asked.mode, asked.order, asked.relevance, asked.facets)


def _row(token: PageToken, text: str | None) -> Row | None:
    """The row that a page continues after. Raises Invalid for a token that was made up."""
    values = token.read(text)
    if values is None:
        return None
    if (
        len(values) != 2 or type(values[0]) is not int or not 0 <= values[0] <= LAST_NUMBER
        or not (values[1] is None or isinstance(values[1], str) or type(values[1]) in (int, float))
    ):  # fmt: skip
        raise Invalid("page_token is not one that was given out here; start without it")
    return Row(values[0], values[1])


def _page(answer: Answer, token: PageToken, understood: Understood | None) -> bytes:
    """A SearchPage as JSON. Written from what was read: as models, fifty versions took as long as finding them."""
    hits = answer.hits
    return orjson.dumps(
        {
            "items": [_found(result) for result in answer.results],
            "next_page_token": token.make([answer.last.number, answer.last.key]) if answer.last else None,
            "total": hits.total,
            "complete": hits.complete,
            "notes": hits.notes,
            "facets": {
                facet.field: {
                    "values": [{"value": value, "count": count} for value, count in facet.values],
                    "whole": facet.whole,
                }
                for facet in hits.facets
            },
            "understood_as": asdict(understood) if understood else None,
        },
        option=orjson.OPT_UTC_Z,
    )


def narrowed(request: Request, q: str, filter: str, fields: Mapping[str, str | None], also: frozenset[str]) -> Asked:
    """What search's filters find, newest first, for a route that takes parameters of its own, too. Raises Invalid."""
    parts: list[Question] = [parse(filter)]
    parts += [Is(of, (value,)) for of, value in fields.items() if value is not None]
    parts += [Is(keyed("tag", key), (value,)) for key, value in _tags(request, also)]
    return Asked(both(*parts), q)


def _found(result: Result) -> dict[str, Any]:
    """A FoundView."""
    found, why = version_fields(result.standing), result.why
    author = found["author"]
    found["author"] = {"id": author.id, "proven": author.proven}
    found["why"] = {"fits": why.fits, "words": why.words, "snippet": why.snippet, "similarity": why.similarity}
    return found


def _tags(request: Request, also: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """`tag.<key>=<value>`. Raises Invalid for a parameter that is none of search's."""
    tags = []
    for key, value in request.query_params.multi_items():
        if key.startswith("tag.") and len(key) > 4 and "\x00" not in key + value:
            tags.append((key[4:], value))
        elif key not in KNOWN | also:
            raise Invalid(f"search does not know {key[:100]!r}; it takes {', '.join(sorted(KNOWN))} and tag.<key>")
    if len(tags) > MOST_TAGS:
        raise Invalid(f"search takes {MOST_TAGS} tags at most")
    return tags
