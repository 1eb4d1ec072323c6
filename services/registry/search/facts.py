"""What a version is found by: exact terms (`kind=model`, `tag:"team"=labour`), words, and numbers. Pure.

A term is a field, an equals sign and a value. A tag's key stands in the field as a JSON string, so that no two tags
share a term whatever their keys hold; a value that an index could not hold is cut, and its hash stands for the rest.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.registry.domain.assets import Draft, Version
from shared.ids import sha256

MOST_TEXT = 50_000  # characters that full text reads; Postgres' own limit for a tsvector is 1 MiB
MOST_GIST = 2_000  # characters that are embedded; a model of sentences reads no more with profit
LONGEST_VALUE = 300
KEPT_OF_LONGER = 200

ALL = "all="
YANKED = "yanked=true"
ALWAYS = frozenset({"all", "kind", "name", "label", "stage", "author", "word", "yanked"})
MANY = frozenset({"alias", "group"})
"""Fields of which a version may have several values: whether it has any is told by the values alone."""

KEYED = ("tag", "param", "metric", "measure")
"""Fields that are named by a key."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a new version is found by.

    Terms; the text that words are taken from; the gist, which is what it is about in a few sentences; its time; numbers
    by field. With `urn` it has the risk class that its asset has.
    """

    terms: tuple[str, ...]
    text: str
    at: datetime
    numbers: Mapping[str, float] = field(default_factory=dict)
    gist: str = ""
    urn: str | None = None


def term(of: str, value: str) -> str:
    """The term of a field's value."""
    if len(value) > LONGEST_VALUE:
        value = f"{value[:KEPT_OF_LONGER]}…{sha256(value.encode())}"
    return f"{of}={value}"


def keyed(of: str, key: str) -> str:
    """The field of a key: keyed("metric", "auc")."""
    quoted = json.dumps(key, ensure_ascii=False)
    return f"{of}:{quoted}" if len(quoted) <= LONGEST_VALUE else f"{of}:{sha256(key.encode())}"


def tag_term(key: str, value: str) -> str:
    """The term of one tag."""
    return term(keyed("tag", key), value)


def param_term(key: str, value: str | int | float) -> str:
    """The term of one hyper-parameter, which is compared as text."""
    return term(keyed("param", key), value if isinstance(value, str) else json.dumps(value))


def metric_field(name: str) -> str:
    """The field of a metric that the version's author claims."""
    return keyed("metric", name)


def measure_field(name: str) -> str:
    """The field of a measure that an evaluation found."""
    return keyed("measure", name)


_KEYED_TERM = re.compile(r'((?:tag|param|metric|measure):(?:"(?:[^"\\]|\\.)*"|sha256:[0-9a-f]+))=', re.DOTALL)


def field_of(found: str) -> str:
    """The field of a term."""
    match = _KEYED_TERM.match(found)
    return match[1] if match else found.partition("=")[0]


def value_of(found: str) -> str:
    """The value of a term, cut where it was long."""
    return found[len(field_of(found)) + 1 :]


def presence(of: str) -> str:
    """The term of versions that have a field at all."""
    return ALL if of in ALWAYS else f"has={of}"


def presences(terms: Iterable[str]) -> list[str]:
    """What says that versions with these terms have their fields."""
    fields = dict.fromkeys(field_of(found) for found in terms)
    return [presence(of) for of in fields if of not in ALWAYS and of not in MANY and of != "has"]


def milliseconds(at: datetime) -> float:
    """A time as fields of numbers hold it."""
    return math.floor(at.timestamp() * 1000)


def found_in(draft: Draft, title: str) -> Found:
    """What a new version is found by. `label` is what people call the asset."""
    return Found(
        tuple(dict.fromkeys(_terms(draft, title))),
        text_of(draft, title),
        draft.registered_at,
        {metric_field(name): value for name, value in draft.metrics.items()},
        gist_of(draft, title),
        draft.urn,
    )


def _terms(draft: Draft, title: str) -> Iterator[str]:
    kind, _, name = draft.urn[3:].partition("/")
    content = draft.content
    yield term("kind", kind)
    yield from name_terms(name, title)
    yield term("stage", "development")
    yield term("author", draft.author.id)
    training = content["training"]
    known = {
        "task": content["task"],
        "licence": content["licence"],
        "run_id": training["run_id"],
        "dataset": (training["dataset"] or {}).get("urn"),
        "source_path": content.get("source", {}).get("uri"),
    }
    yield from (term(of, value) for of, value in known.items() if value)
    for key, value in draft.tags.items():
        yield tag_term(key, value)
    for key, value in training["parameters"].items():
        if isinstance(value, str | int | float):
            yield param_term(key, value)


def name_terms(name: str, title: str) -> list[str]:
    """An asset is found by its name and by its title; by the title it is sorted, and matched with patterns."""
    return [*(term("name", said) for said in dict.fromkeys((name, title))), term("label", title)]


def text_of(version: Draft | Version, title: str) -> str:
    """The text of a version, as it is described and tagged, that words are taken from."""
    name, content = version.urn.partition("/")[2], version.content
    return text(title, name, version.description, content["task"], content["licence"], version.tags)


def gist_of(version: Draft | Version, title: str) -> str:
    """What a version is about, as it is described, for a model of sentences."""
    return gist(title, version.description, version.content["task"])


def text(
    title: str, name: str, description: str, task: str | None, licence: str | None, tags: Mapping[str, str]
) -> str:
    """The text that words are taken from."""
    parts: Iterable[str] = (
        title,
        name,
        re.sub(r"[._-]+", " ", name),
        description,
        task or "",
        licence or "",
        *(f"{key} {value}" for key, value in tags.items()),
    )
    return "\n".join(parts)[:MOST_TEXT]


def gist(label: str, description: str, task: str | None) -> str:
    """What a version is about, for a model of sentences; the same for versions that say the same."""
    said = (re.sub(r"[._/-]+", " ", label), description, task or "")
    return ". ".join(part for part in said if part)[:MOST_GIST]
