"""A page of the versions found: in what order, and from where on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from services.registry.search import fields
from services.registry.search.bitmaps import LAST_NUMBER, Floats, Numbers
from services.registry.search.view import View
from shared.errors import Invalid

NAMES = "label"


@dataclass(frozen=True, slots=True)
class Order:
    """`field` is a field of numbers, `label` for names, or None: the newest (or the oldest) registration first.

    Versions without a number come last, either way; of equal ones the newest is first.
    """

    field: str | None = None
    descending: bool = True


NEWEST = Order()


def read_order(text: str | None) -> Order:
    """`name`, `metrics.auc DESC`, `created ASC`. Raises Invalid."""
    if text is None or not text.strip():
        return NEWEST
    key, _, direction = text.strip().partition(" ")
    direction = direction.strip().lower() or ("asc" if key.lower().endswith("name") else "desc")
    named, dot, rest = key.partition(".")
    rest = rest[1:-1] if rest[:1] in ("`", '"') else rest
    found = fields.field(named, rest if dot else None)
    if direction not in ("asc", "desc") or found is None or (found.kind == "text" and found.name != "name"):
        raise Invalid(
            f"cannot order by {text[:80]!r}; take name, version, created, updated, metrics.<name> or measures.<name>, "
            "then ASC or DESC; or relevance, where words are asked for"
        )
    return Order(NAMES if found.name == "name" else found.name, direction == "desc")


@dataclass(frozen=True, slots=True)
class Row:
    """A version of a page, and what it was put there by."""

    number: int
    key: Any = None


async def load(view: View, order: Order) -> None:
    """What the order needs."""
    if order.field == NAMES:
        await view.load_names()
    elif order.field is not None:
        await view.load_columns([order.field])


def page(view: View, found: BitMap, order: Order, after: Row | None, most: int) -> list[Row]:
    """The next versions after one that was on the page before."""
    if after is not None and after.key is not None and isinstance(after.key, str) != (order.field == NAMES):
        raise Invalid("page_token is not one that was given out here; start without it")
    if order.field is None:
        return [Row(number) for number in _by_number(found, order.descending, after.number if after else None, most)]
    rows: list[Row] = []
    if after is None or after.key is not None:
        rows = _by_value(view, found, order, after, most)
    if len(rows) < most:
        valued = _valued(view, found, order)[0]
        without = found - BitMap(valued.tolist())
        before = after.number if after is not None and after.key is None else None
        rows += [Row(number) for number in _by_number(without, True, before, most - len(rows))]
    return rows


def _by_number(found: BitMap, descending: bool, after: int | None, most: int) -> list[int]:
    """By rank in the bitmap, whatever its size."""
    if descending:
        end = len(found) if after is None else found.rank(min(after, LAST_NUMBER) - 1) if after > 0 else 0
        return list(reversed(list(found[max(0, end - most) : end])))
    start = 0 if after is None else found.rank(min(after, LAST_NUMBER))
    return list(found[start : start + most])


def _valued(view: View, found: BitMap, order: Order) -> tuple[Numbers, Floats]:
    assert order.field is not None
    return view.name_ranks(found) if order.field == NAMES else view.values(order.field, found)


def _by_value(view: View, found: BitMap, order: Order, after: Row | None, most: int) -> list[Row]:
    numbers, values = _valued(view, found, order)
    keys = -values if order.descending else values
    if after is not None:
        kept = _beyond(view, order, after, numbers, keys)
        numbers, keys, values = numbers[kept], keys[kept], values[kept]
    if len(keys) > most:
        kept = keys <= np.partition(keys, most - 1)[most - 1]
        numbers, keys, values = numbers[kept], keys[kept], values[kept]
    placed = np.lexsort((-numbers.astype(np.int64), keys))
    if order.field != NAMES:
        return [Row(int(numbers[at]), float(values[at])) for at in placed[:most]]
    chosen = placed[:most] if bool(np.all(keys == np.floor(keys))) else placed
    labels = view.labels_of(int(numbers[at]) for at in chosen)
    rows = [Row(int(numbers[at]), labels[int(numbers[at])]) for at in chosen]
    rows.sort(key=lambda row: row.number, reverse=True)
    rows.sort(key=lambda row: row.key, reverse=order.descending)
    return rows[:most]


def _beyond(view: View, order: Order, after: Row, numbers: Numbers, keys: Floats) -> npt.NDArray[np.bool_]:
    """Which of them come after a row. Labels that share a place between two are told apart by what they say."""
    last = view.rank_of(after.key) if order.field == NAMES else float(after.key)
    last = -last if order.descending else last
    same = keys == last
    kept: npt.NDArray[np.bool_] = (keys > last) | (same & (numbers < after.number))
    if order.field == NAMES and not last.is_integer():
        labels = view.labels_of(int(number) for number in numbers[same])
        for at in np.flatnonzero(same):
            label = labels[int(numbers[at])]
            kept[at] = numbers[at] < after.number if label == after.key else (label > after.key) != order.descending
    return kept
