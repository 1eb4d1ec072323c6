"""What each licence asks, as data: `terms.json` for models' licences and common SPDX ones, categories for the rest."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Literal

import orjson
from license_expression import get_license_index  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict

Right = Literal["allowed", "limited", "forbidden", "unknown"]
NEAR = 3


class Terms(BaseModel):
    """What one licence lets one do and asks in return. `source` is where that was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    name: str
    names: tuple[str, ...] = ()
    spdx: str | None = None
    commercial: Right = "allowed"
    derivatives: Right = "allowed"
    attribution: bool = True
    share_alike: bool = False
    restrictions: str | None = None
    built_with: str | None = None
    name_prefix: str | None = None
    notice: str | None = None
    monthly_users: int | None = None
    outputs: str | None = None
    note: str | None = None
    source: str

    @property
    def family(self) -> str:
        """The licence without its version and suffix: `GPL` of GPL-3.0-or-later, `llama` of llama3.1."""
        return re.sub(r"[-_ ]?v?\d+(\.\d+)*(-only|-or-later)?$", "", self.key)

    def serves_share_alike_of(self, other: Terms) -> bool:
        """Whether something under `other`'s share-alike may be passed on under these terms."""
        return self.key == other.key or self.family in _SAME.get(other.family, (other.family,))


_SAME = {
    "LGPL": ("LGPL", "GPL", "AGPL"),
    "GPL": ("GPL", "AGPL"),
    "MPL": ("MPL", "LGPL", "GPL", "AGPL"),
    "CC-BY-SA": ("CC-BY-SA", "GPL"),
}
"""Families that a share-alike licence lets its works pass into; versions are not told apart."""

_BY_CATEGORY: dict[str, dict[str, object]] = {
    "Permissive": {},
    "Public Domain": {"attribution": False},
    "Copyleft": {"share_alike": True},
    "Copyleft Limited": {"share_alike": True},
}


def normal(name: str) -> str:
    """A name as it is compared: lower case, one space between words, no `license` at its end."""
    plain = re.sub(r"[\s_]+", " ", name.strip().casefold())
    return re.sub(r"\s+licen[cs]e( agreement)?$", "", plain)


@cache
def table() -> dict[str, Terms]:
    """Every licence of the table by its key."""
    rows = orjson.loads(files(__package__).joinpath("terms.json").read_bytes())
    return {row["key"]: Terms.model_validate(row) for row in rows}


@cache
def known() -> dict[str, Terms]:
    """Every licence that is known, by its key: the table's, then SPDX's by their category."""
    found = dict(table())
    for row in get_license_index():
        key = row.get("spdx_license_key")
        if key and not row.get("is_exception") and not key.startswith("LicenseRef-"):
            found.setdefault(key, _by_category(key, row["category"] or ""))
    return found


def _by_category(key: str, category: str) -> Terms:
    asked = _BY_CATEGORY.get(category)
    said: dict[str, object] = {"commercial": "unknown", "derivatives": "unknown"} if asked is None else dict(asked)
    parts = key.split("-")
    said |= {"commercial": "forbidden"} if "NC" in parts else {}
    said |= {"derivatives": "forbidden"} if "ND" in parts else {}
    said |= {"share_alike": True} if "SA" in parts else {}
    return Terms.model_validate(
        {"key": key, "name": key, "spdx": key, "source": f"https://spdx.org/licenses/{key}.html", **said}
    )


@cache
def names() -> dict[str, str]:
    """Every name that a licence goes by, normal, to its key."""
    found: dict[str, str] = {}
    for row in get_license_index():
        key = row.get("spdx_license_key")
        if key in known():
            for name in (key, row["license_key"], *row.get("other_spdx_license_keys", ())):
                found[normal(name)] = key
    for terms in table().values():
        for name in (terms.key, terms.name, *terms.names):
            found[normal(name)] = terms.key
    return found


def named(name: str) -> Terms | None:
    """The licence of this name, however it is written; None where it is not known."""
    key = names().get(normal(name))
    return None if key is None else known()[key]


def near(name: str) -> list[str]:
    """Known licences whose names look like this one, most alike first."""
    close = get_close_matches(normal(name)[:200], names(), n=NEAR * 3, cutoff=0.6)
    return list(dict.fromkeys(names()[one] for one in close))[:NEAR]
