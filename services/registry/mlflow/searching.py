"""Search over registered models and their versions, by MLflow's filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.registry.domain.assets import Asset
from services.registry.handlers.models import Models
from services.registry.handlers.reading import Standing
from services.registry.handlers.searching import Searching
from services.registry.mlflow import filters, shapes
from services.registry.mlflow.asked import Asked
from services.registry.mlflow.checks import stage_shown
from services.registry.mlflow.errors import wrong
from services.registry.mlflow.filters import Comparison
from services.registry.mlflow.paging import offset_of
from services.registry.mlflow.routing import Routes
from services.registry.mlflow.shapes import IS_PROMPT, ms
from services.registry.search import grammar
from services.registry.search.asked import Asked as Searched
from services.registry.search.asking import Is, both
from services.registry.search.ordering import NAMES, Order, Row
from shared.http import PageToken

MOST_MODELS = 1_000
MOST_VERSIONS = 200_000
NUMBERS = frozenset(
    {"version_number", "version", "creation_timestamp", "last_updated_timestamp", "timestamp", "creation_time"}
)


ORDERS = {
    "name": NAMES,
    "version_number": "version",
    "creation_timestamp": "created",
    "last_updated_timestamp": "updated",
}


def add_to(routes: Routes, models: Models, searching: Searching) -> None:
    """The two routes of search. Versions are asked of the catalog's index, which has what MLflow's filters ask for."""

    @routes.get("registered-models/search", "read")
    async def search_models(asked: Asked) -> Any:
        most = _most(asked, 100, MOST_MODELS)
        comparisons, kind = _of_kind(filters.parse(asked.some_text("filter") or "", NUMBERS))
        if any(one.of == "attribute" and one.key != "name" for one in comparisons):
            raise wrong("Invalid attribute name: a registered model is found by its name and its tags")
        order = [(_of_asset(of, key), up) for of, key, up in filters.ordering(asked.texts("order_by"))]
        token = _token(asked, "models")
        offset = offset_of(asked, token)
        fit = filters.fits(comparisons, _look_at_asset)
        found = await models.search(asked.caller, (kind,), fit, order, offset, most + 1)
        answer: dict[str, Any] = {}
        if found:
            answer["registered_models"] = [shapes.registered_model(one) for one in found[:most]]
        if len(found) > most:
            answer["next_page_token"] = token.make([offset + most])
        return answer

    @routes.get("model-versions/search", "read")
    async def search_versions(asked: Asked) -> Any:
        most = _most(asked, 10_000, MOST_VERSIONS)
        comparisons, kind = _of_kind(filters.parse(asked.some_text("filter") or "", NUMBERS))
        for one in comparisons:
            if one.of == "attribute" and one.key not in _ATTRIBUTES:
                raise wrong(f"Invalid attribute name: {one.key[:100]}. Valid ones: {', '.join(_ATTRIBUTES)}")
        clauses = filters.ordering(asked.texts("order_by"))
        order = [(_of_version(of, key), up) for of, key, up in clauses]
        token = _token(asked, "versions")
        named = [one for one in comparisons if (one.of, one.key, one.operator) == ("attribute", "name", "=")]
        if named or len(clauses) > 1 or any(key not in ORDERS for _, key, _ in clauses):
            # Few versions, or an order that the index does not keep: looked at one by one.
            offset = offset_of(asked, token)
            title = str(named[0].value) if named else None
            fit = filters.fits(comparisons, _look_at_version)
            found = await models.search_versions(asked.caller, (kind,), title, fit, order, offset, most + 1)
            next_row: list[Any] | None = [offset + most] if len(found) > most else None
            found = found[:most]
        else:
            _, key, up = clauses[0] if clauses else ("attribute", "last_updated_timestamp", False)
            question = both(Is("kind", (kind,)), grammar.parse(filters.written(comparisons)))
            wanted = Searched(question, order=Order(ORDERS[key], descending=not up))
            page = await searching.search(asked.caller, wanted, _row(asked, token), most)
            found = [result.standing for result in page.results]
            next_row = [page.last.number, page.last.key] if page.last else None
        answer: dict[str, Any] = {}
        if found:
            answer["model_versions"] = [shapes.model_version(one) for one in found]
        if next_row is not None:
            answer["next_page_token"] = token.make(next_row)
        return answer


def _row(asked: Asked, token: PageToken) -> Row | None:
    """The version that a page of the index continues after. Raises INVALID_PARAMETER_VALUE."""
    values = token.read(asked.some_text("page_token") or None)
    if values is None:
        return None
    if len(values) != 2 or type(values[0]) is not int or not isinstance(values[1], str | int | float | None):
        raise wrong("Invalid page token")
    return Row(values[0], values[1])


def _most(asked: Asked, default: int, limit: int) -> int:
    most = asked.whole("max_results", default)
    if not 1 <= most <= limit:
        raise wrong(f"Invalid value {most} for parameter 'max_results' supplied: it must be 1 to {limit}")
    return most


def _token(asked: Asked, of: str) -> PageToken:
    return PageToken(of, asked.caller.workspace, asked.some_text("filter"), asked.texts("order_by"))


def _of_kind(comparisons: list[Comparison]) -> tuple[list[Comparison], str]:
    """The tag by which prompts are asked for or left out is a kind here; without it, models are meant."""
    kind, kept = "model", []
    for one in comparisons:
        if (one.of, one.key) != ("tag", IS_PROMPT):
            kept.append(one)
        elif (one.operator, str(one.value).lower()) in (("=", "true"), ("!=", "false")):
            kind = "prompt"
    return kept, kind


def _look_at_asset(asset: Asset, of: str, key: str) -> str | float | None:
    if of == "tag":
        return asset.tags.get(key)
    if of != "attribute":
        raise wrong(f"Invalid entity type: a registered model has no {of}")
    return asset.title


_ATTRIBUTES: dict[str, Callable[[Standing], Any]] = {
    "name": lambda one: one.version.title,
    "version_number": lambda one: one.version.ref.version,
    "version": lambda one: one.version.ref.version,
    "run_id": lambda one: one.version.content["training"]["run_id"] or "",
    "source_path": lambda one: one.version.content.get("source", {}).get("uri"),
    "creation_timestamp": lambda one: ms(one.version.registered_at),
    "last_updated_timestamp": lambda one: ms(one.version.updated_at),
    "current_stage": lambda one: stage_shown(one.stage),
}


def _look_at_version(one: Standing, of: str, key: str) -> Any:
    if of == "tag":
        return one.version.tags.get(key)
    if of != "attribute":
        raise wrong(f"Invalid entity type: a model version has no {of}")
    return _ATTRIBUTES[key](one)


def _of_asset(of: str, key: str) -> Callable[[Asset], Any]:
    if of == "attribute" and key == "name":
        return lambda asset: asset.title
    if of == "attribute" and key in ("timestamp", "last_updated_timestamp"):
        return lambda asset: asset.updated_at
    raise wrong(f"Invalid order by key '{key[:100]}' specified. Valid keys are name and last_updated_timestamp")


def _of_version(of: str, key: str) -> Callable[[Standing], Any]:
    if of != "attribute" or key not in _ATTRIBUTES:
        raise wrong(f"Invalid order by key '{key[:100]}' specified. Valid keys are {', '.join(_ATTRIBUTES)}")
    return _ATTRIBUTES[key]
