"""Metrics in the shapes that people give them: by split, as lists, with units, as Hugging Face's model index. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.registry.foreign import charts, document, figures
from services.registry.foreign.document import Pointer
from services.registry.foreign.fields import MOST_FIELDS, Field
from services.registry.foreign.reading import IN_PLACE, Reading, because, keys_of, shaped, texts
from services.registry.foreign.vocabulary import SPLITS, section, snake

VALUES = ("value", "score", "result", "mean", "metric_value", "val")
NAMES = ("name", "metric", "type", "key", "id", "measure", "metric_name", "title", "label")
UNITS = ("unit", "units", "uom")
PLACES = ("split", "subset", "partition", "slice", "data_split", "phase")
NOISE = frozenset({"metrics", "metric", "scores", "score", "values", "results", "overall", "figures", "data"})


def metrics(reading: Reading, value: Any, at: Pointer) -> bool:
    before = len(reading.found)
    if figures.number(value) is not None:
        return reading.add(f"metrics.{snake(at[-1])}", value, at, because(at, "a metric"), IN_PLACE)
    prefix = SPLITS.get(snake(at[-1]).partition("_metrics")[0], "")
    _metrics_in(reading, value, at, (prefix,) if prefix else (), because(at, "metrics"))
    return len(reading.found) > before


def _metrics_in(reading: Reading, value: Any, at: Pointer, prefix: tuple[str, ...], reason: str) -> None:
    if isinstance(value, dict):
        _metrics_of_object(reading, value, at, prefix, reason)
    elif isinstance(value, list):
        several = sum(isinstance(item, dict) and any(isinstance(one, list) for one in item.values()) for item in value)
        for index, item in enumerate(value):
            here = (*at, str(index))
            if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str):
                _metric(reading, snake(item[0]), item[1], (*here, "1"), prefix, reason, (*here, "0"))
            elif isinstance(item, dict):
                _metrics_of_item(reading, item, here, prefix, reason, several=several > 1)


def _metrics_of_item(
    reading: Reading, item: dict[str, Any], at: Pointer, prefix: tuple[str, ...], reason: str, *, several: bool
) -> None:
    """One of a list: a metric with its name, or the metrics of a split or of a dataset."""
    keys = keys_of(item)
    place = texts(item, keys, PLACES)
    if place is not None:
        prefix = (*prefix, SPLITS.get(snake(item[place]), snake(item[place])))
        reading.claimed.add((*at, place))
    name, value = texts(item, keys, NAMES), _figure_of(item, keys)
    if name is not None and value is not None:
        claims = [(*at, name)]
        unit = texts(item, keys, UNITS)
        if unit is not None:
            claims.append((*at, unit))
        said = item[unit] if unit is not None else ""
        called = texts(item, keys, ("type", "metric", "key", "id")) or name
        claims.append((*at, called))
        _metric(reading, snake(item[called]), item[value], (*at, value), prefix, reason, *claims, unit=said)
        return
    dataset = item.get(keys.get("dataset", ""))
    if isinstance(dataset, dict) and several and isinstance(dataset.get("name") or dataset.get("type"), str):
        prefix = (*prefix, snake(str(dataset.get("name") or dataset.get("type")))[:60])
    for one in ("task", "dataset"):
        if one in keys:
            reading.sections[one](reading, item[keys[one]], (*at, keys[one]))
    rest = {key: inner for key, inner in item.items() if snake(key) not in ("task", "dataset") and key != place}
    _metrics_of_object(reading, rest, at, prefix, reason)


def _metrics_of_object(
    reading: Reading, value: dict[str, Any], at: Pointer, prefix: tuple[str, ...], reason: str
) -> None:
    for key, inner in value.items():
        here, name = (*at, key), snake(key)
        if (chart := charts.recognise(key, inner)) is not None:
            reading.chart(chart, here, shaped(chart))
        elif isinstance(inner, dict):
            keys = {snake(one): one for one in inner}
            figure = _figure_of(inner, keys)
            if figure is not None:
                unit = texts(inner, keys, UNITS)
                said = inner[unit] if unit is not None else ""
                _metric(reading, name, inner[figure], (*here, figure), prefix, reason, unit=said)
                if unit is not None:
                    reading.claimed.add((*here, unit))
                rest = {one: more for one, more in inner.items() if one not in (figure, unit)}
                _metrics_of_object(reading, rest, here, (*prefix, name), reason)
            else:
                more = () if name in NOISE else (SPLITS.get(name, name),)
                _metrics_in(reading, inner, here, (*prefix, *more), reason)
        elif isinstance(inner, list):
            more = () if name in NOISE else (SPLITS.get(name, name),)
            _metrics_in(reading, inner, here, (*prefix, *more), reason)
        elif figures.number(inner) is not None:
            _metric(reading, name, inner, here, prefix, reason)
        elif (meant := section(key)) in ("task", "dataset", "name") and isinstance(inner, str):
            reading.sections[meant](reading, inner, here)


def _figure_of(item: dict[str, Any], keys: Mapping[str, str]) -> str | None:
    """The key of an object whose value is the figure itself."""
    return next((keys[one] for one in VALUES if one in keys and figures.number(item[keys[one]]) is not None), None)


def _metric(
    reading: Reading, name: str, value: Any, at: Pointer, prefix: tuple[str, ...], reason: str,
    *claims: Pointer, unit: str = "",
) -> None:  # fmt: skip
    whole = ".".join((*prefix, name))[:200]
    found = figures.figure(whole, value, unit)
    if found is None:
        return
    said = f"{reason}; {found.said}" if found.said else reason
    made = Field(
        field=f"metrics.{found.name}", value=found.value, unit=found.unit, source=document.text(at), reason=said,
        confidence=IN_PLACE if found.sure else 0.7,
    )  # fmt: skip
    before = reading.found.get(made.field)
    if before is not None and before.value != made.value:
        parts = [snake(part) for part in at[:-1] if not part.isdecimal()]
        made = made.model_copy(update={"field": f"metrics.{'.'.join([*parts[-2:], found.name])}"[:200]})
    if len(reading.found) < MOST_FIELDS and reading.found.setdefault(made.field, made).value == made.value:
        reading.claimed |= {at, *claims}
