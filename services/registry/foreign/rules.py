"""The rules: a walk through a foreign document that says what each part means, by names first, then by shapes. Pure.

Whatever is made into a field is claimed, so that at the end the rest is known: it is kept, and shown as what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.registry.foreign import charts
from services.registry.foreign.document import Pointer
from services.registry.foreign.features import tensors
from services.registry.foreign.fields import Field
from services.registry.foreign.metrics import metrics
from services.registry.foreign.reading import (
    BY_NAME,
    IN_PLACE,
    Reading,
    Section,
    because,
    first,
    keys_of,
    shaped,
    texts,
)
from services.registry.foreign.vocabulary import section, snake

SHALLOW = 3
"""A name deeper than this is some part's, not the model's."""


def read(whole: Any) -> Reading:
    """Everything that the rules make of a document."""
    reading = Reading(whole, _SECTIONS)
    _walk(reading, whole, ())
    if "kind" not in reading.found:
        reading.found["kind"] = Field(
            field="kind", value="model", reason="nothing says that it is anything else", confidence=0.5
        )
    return reading


def _walk(reading: Reading, node: Any, at: Pointer) -> None:
    if isinstance(node, list):
        for index, inner in enumerate(node[:50]):
            if isinstance(inner, dict | list):
                _walk(reading, inner, (*at, str(index)))
        return
    for key, inner in node.items():
        here = (*at, key)
        meant = section(key)
        if meant is not None and _SECTIONS[meant](reading, inner, here):
            continue
        if (chart := charts.recognise(key, inner)) is not None:
            reading.chart(chart, here, shaped(chart))
        elif isinstance(inner, dict) or (isinstance(inner, list) and any(isinstance(one, dict) for one in inner)):
            _walk(reading, inner, here)


# One value


def _single(name: str, what: str, *, shallow: bool = False) -> Callable[[Reading, Any, Pointer], bool]:
    def read_one(reading: Reading, value: Any, at: Pointer) -> bool:
        if shallow and len([part for part in at if not part.isdecimal()]) > SHALLOW:
            return False
        if isinstance(value, dict):
            for key in value:
                if snake(key) in ("type", "id", "name", "value", "identifier", "uri", "path"):
                    return reading.add(name, value[key], (*at, key), because(at, what), IN_PLACE)
            return False
        if name in reading.found:
            return False
        return reading.add(name, value, at, because(at, what), BY_NAME)

    return read_one


def _several(name: str, what: str) -> Callable[[Reading, Any, Pointer], bool]:
    """A text, a list of texts, or things with names: one tag, the names in a row."""

    def read_many(reading: Reading, value: Any, at: Pointer) -> bool:
        items = value if isinstance(value, list) else [value]
        names: list[str] = []
        claims: list[Pointer] = []
        for index, item in enumerate(items):
            here = (*at, str(index)) if isinstance(value, list) else at
            if isinstance(item, str) and item.strip():
                names.append(item.strip())
                claims.append(here)
            elif isinstance(item, dict):
                key = texts(item, keys_of(item), ("name", "full_name", "id", "type", "title", "uri"))
                if key is not None:
                    names.append(item[key])
                    claims.append((*here, key))
        joined = ", ".join(dict.fromkeys(names))
        made = bool(joined) and reading.add(name, joined, at, because(at, what), BY_NAME)
        if made and (not isinstance(value, str)):
            reading.claimed.discard(at)
            reading.claimed |= set(claims)
        return made

    return read_many


def _bases(reading: Reading, value: Any, at: Pointer) -> bool:
    items = value if isinstance(value, list) else [value]
    made = False
    for index, item in enumerate(items[:50]):
        here = (*at, str(index)) if isinstance(value, list) else at
        if isinstance(item, dict):
            key = first(keys_of(item), ("name", "id", "model_id", "uri"))
            item, here = (item[key], (*here, key)) if key is not None else (None, here)
        number = sum(name.startswith("base.") for name in reading.found)
        made |= reading.add(f"base.{number}", item, here, because(at, "what it was made from"), BY_NAME)
    return made


def _target(reading: Reading, value: Any, at: Pointer) -> bool:
    return isinstance(value, str) and reading.add("tags.target", value, at, because(at, "what is predicted"), IN_PLACE)


def _tags(reading: Reading, value: Any, at: Pointer) -> bool:
    if isinstance(value, dict):
        made = [
            reading.add(f"tags.{key[:200]}", inner, (*at, key), because(at, "tags"), BY_NAME)
            for key, inner in value.items()
            if isinstance(inner, str | int | float)
        ]
        return any(made)
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        made = []
        for index, one in enumerate(value):
            keys = keys_of(one)
            if "key" in keys and "value" in keys:
                here = (*at, str(index))
                made.append(
                    reading.add(f"tags.{one[keys['key']]}", one[keys["value"]], (*here, keys["value"]),
                                because(at, "tags"), BY_NAME, (*here, keys["key"]))
                )  # fmt: skip
        return any(made)
    return reading.add("tags.keywords", value, at, because(at, "words to find it by"), BY_NAME)


def _flavors(reading: Reading, value: Any, at: Pointer) -> bool:
    """MLflow's flavors: the libraries that can load the model. What each says stays as it is."""
    if not isinstance(value, dict):
        return False
    names = [name for name in value if name != "python_function"] or list(value)
    made = reading.add("tags.framework", ", ".join(names), at, because(at, "the libraries that load it"), BY_NAME)
    reading.claimed.discard(at)
    return made


def _signature(reading: Reading, value: Any, at: Pointer) -> bool:
    if isinstance(value, dict):
        _walk(reading, value, at)
        return True
    return tensors("inputs")(reading, value, at)


# Parameters


def _parameters(reading: Reading, value: Any, at: Pointer) -> bool:
    if isinstance(value, list):
        made = []
        for index, item in enumerate(value):
            keys = keys_of(item)
            name = first(keys, ("name", "key"))
            if name is not None and "value" in keys:
                here = (*at, str(index))
                made.append(
                    reading.add(f"parameters.{item[name]}", item[keys["value"]], (*here, keys["value"]),
                                because(at, "how it was trained"), BY_NAME, (*here, name))
                )  # fmt: skip
        return any(made)
    if not isinstance(value, dict):
        return False
    return _parameters_of(reading, value, at, "", because(at, "how it was trained"))


def _parameters_of(reading: Reading, value: dict[str, Any], at: Pointer, before: str, reason: str) -> bool:
    made = False
    for key, inner in value.items():
        name = f"{before}{key[:100]}"
        if isinstance(inner, dict) and len(name) < 150:
            made |= _parameters_of(reading, inner, (*at, key), f"{name}.", reason)
        else:
            made |= reading.add(f"parameters.{name}", inner, (*at, key), reason, BY_NAME)
    return made


# Charts


def _charts(reading: Reading, value: Any, at: Pointer) -> bool:
    if (chart := charts.recognise(at[-1], value)) is not None:
        return reading.chart(chart, at, because(at, f"a {chart.type.replace('_', ' ')}"))
    made = False
    if isinstance(value, dict):
        for key, inner in value.items():
            made |= _charts(reading, inner, (*at, key)) if isinstance(inner, dict | list) else False
    elif isinstance(value, list):
        for index, item in enumerate(value[:100]):
            if not isinstance(item, dict):
                continue
            keys = keys_of(item)
            name = first(keys, ("name", "title", "id", "type"))
            inner = next((key for key, one in keys.items() if isinstance(item[one], dict | list)), None)
            found = charts.recognise(str(item[name]) if name else at[-1], item)
            if found is None and inner is not None:
                found = charts.recognise(str(item[name]) if name else inner, item[keys[inner]])
            if found is not None and name is not None:
                here = (*at, str(index))
                made |= reading.add(
                    f"charts.{snake(str(item[name]))}",
                    found.model_dump(mode="json"),
                    here,
                    because(at, "charts"),
                    IN_PLACE,
                )
    return made


_SECTIONS: dict[str, Section] = {
    "name": _single("name", "what it is called", shallow=True),
    "title": _single("name", "what it is called", shallow=True),
    "description": _single("description", "what it is for"),
    "task": _single("task", "its task"),
    "licence": _single("licence", "its licence"),
    "author": _several("tags.author", "who made it"),
    "framework": _several("tags.framework", "the library it was made with"),
    "flavors": _flavors,
    "created_at": _single("tags.created_at", "when it was made"),
    "base": _bases,
    "dataset": _several("tags.dataset", "the data that it was made from"),
    "tags": _tags,
    "metrics": metrics,
    "parameters": _parameters,
    "inputs": tensors("inputs"),
    "outputs": tensors("outputs"),
    "target": _target,
    "signature": _signature,
    "charts": _charts,
    "digest": _single("artefact.digest", "its bytes"),
    "format": _single("artefact.format", "the format of its bytes"),
    "uri": _single("tags.source_uri", "where its bytes are"),
    "run_id": _single("run_id", "the run that made it"),
    "commit": _single("commit", "the code that made it"),
    "version": _single("tags.source_version", "its version over there"),
    "language": _several("tags.language", "the language that it understands"),
    "domain": _several("tags.domain", "the field that it is for"),
}
