"""What single columns of the snapshot's rows say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from services.router.domain import Buckets, Challenger, Group, Shadow, UnitRule, Version, hosted_of


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a model's signature; an empty datatype or shape says nothing."""

    datatype: str = ""
    shape: tuple[int, ...] = ()
    known: dict[tuple[Any, ...], tuple[int, frozenset[type]]] = field(default_factory=dict, compare=False)
    """Datatypes with shapes that were found to fit, with how many values of which types they need; bounded."""


def group_of(row: Mapping[str, Any]) -> Group:
    """A `snapshot_groups` row as the domain's Group."""
    challengers = tuple(
        Challenger(
            Version(entry["urn"], entry["version"], entry["digest"]),
            Buckets(tuple((start, end) for start, end in entry["buckets"])),
        )
        for entry in orjson.loads(row["challengers"])
    )
    return Group(
        name=row["name"],
        workspace=row["workspace"],
        revision=row["revision"],
        champion=Version(row["champion_urn"], row["champion_version"], row["champion_digest"]),
        challengers=challengers,
        unit_rule=UnitRule(row["unit_header"], row["unit_body_id"]),
        hosted=hosted_of(orjson.loads(row["hosted"])),
        shadows=tuple(
            Shadow(Version(one["urn"], one["version"], one["digest"]), one["share_bp"])
            for one in orjson.loads(row.get("shadows") or "[]")
        ),
    )


def moment_of(value: datetime | str) -> datetime:
    """A text where the snapshot was kept in a file."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def inputs_of(signature: str) -> dict[str, Tensor]:
    """The inputs that a version's signature names, in its order."""
    return {
        str(tensor["name"]): Tensor(str(tensor.get("datatype") or ""), tuple(tensor.get("shape") or ()))
        for tensor in orjson.loads(signature).get("inputs", ())
    }
