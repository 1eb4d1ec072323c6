"""Model groups as pure data: who serves a unit, and what a promotion, ramp or rollback makes of a group.

A group splits its units into 10,000 buckets. Each challenger owns some of them, the champion owns the rest. A change of
weights moves only the buckets it must: a growing challenger takes from the champion and keeps what it had, so that
nobody who saw it flips back.

Every decision is a function of the group as it was read, and names the revision it was read at. The store applies it
only while that revision is still the current one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from typing import Any

from services.router.errors import (
    AlreadyChampion,
    GroupNameFolds,
    GroupNameRefused,
    NothingToRollBackTo,
    RevisionConflict,
    WeightsRefused,
)

BUCKETS = 10_000
MAX_CHALLENGERS = 32
MAX_SHADOWS = 4
# 'inference_log_' takes 14 of the 63 bytes which Postgres keeps of an identifier; 48 more leave one to spare.
GROUP_NAME = re.compile(r"[a-z][a-z0-9-]{0,47}")
UNIT_HEADER = "x-mintmark-unit"


def checked_group_name(name: str) -> str:
    """Return `name` if it is safe as a path segment, as a metric label and as part of a table name.

    Raises GroupNameRefused with a sentence that says what to change. The pattern is ASCII only, which refuses
    homoglyphs, quotes, upper case, spaces and control characters by construction.
    """
    if GROUP_NAME.fullmatch(name) is None:
        raise GroupNameRefused(name)
    return name


def log_table(group: str) -> str:
    """The inference table of a group: `live-employment` -> `inference_log_live_employment` (at most 62 bytes)."""
    return "inference_log_" + checked_group_name(group).replace("-", "_")


def refuse_folding(name: str, taken: Iterable[str]) -> None:
    """Refuse a new group whose table would be another group's table.

    Today's pattern has no `_`, so folding is one-to-one and only the very same name can collide; names which were
    taken under an older or wider pattern are folded here without being checked again.
    """
    table = log_table(name)
    for other in taken:
        if "inference_log_" + other.replace("-", "_").lower() == table:
            raise GroupNameFolds(name, other, table)


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version of an asset. `digest` is `sha256:<64 hex>`, the digest which its approval binds to."""

    urn: str
    version: int
    digest: str

    def __str__(self) -> str:
        return f"{self.urn}@{self.version}"


@dataclass(frozen=True, slots=True)
class Buckets:
    """A set of buckets as sorted, disjoint, non-touching half-open ranges: `((0, 1000), (3000, 3500))`."""

    ranges: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def of(members: Iterable[int]) -> Buckets:
        ranges: list[tuple[int, int]] = []
        for bucket in sorted(members):
            if ranges and ranges[-1][1] == bucket:
                ranges[-1] = (ranges[-1][0], bucket + 1)
            else:
                ranges.append((bucket, bucket + 1))
        return Buckets(tuple(ranges))

    def __iter__(self) -> Iterator[int]:
        for start, end in self.ranges:
            yield from range(start, end)

    def __len__(self) -> int:
        return sum(end - start for start, end in self.ranges)


@dataclass(frozen=True, slots=True)
class Challenger:
    version: Version
    buckets: Buckets

    @property
    def weight_bp(self) -> int:
        """Share of the units in basis points: one bucket is one of them."""
        return len(self.buckets)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that is sent a share of the requests beside the one that answers; its answers nobody sees."""

    version: Version
    share_bp: int


@dataclass(frozen=True, slots=True)
class Hosted:
    """A version that a provider answers for, and no deployment; `model` is the provider's name of what answers.

    `statement` is the DSSE envelope of its approval as JSON: gateways believe the signature in it and nothing else.
    """

    version: Version
    provider: str
    model: str
    statement: str


@dataclass(frozen=True, slots=True)
class UnitRule:
    """Whom stickiness holds on to: the value of `header`, else the body's `id` where allowed, else the request id.

    A request id is new with every request: such traffic is split by the weights but is not sticky.
    """

    header: str = UNIT_HEADER
    use_body_id: bool = True

    def unit_of(self, header_value: str | None, body_id: str | None, request_id: str) -> str:
        return header_value or (body_id if self.use_body_id and body_id else request_id)


@dataclass(frozen=True)
class Group:
    """A stable address and what stands behind it at one revision."""

    name: str
    workspace: str
    revision: int
    champion: Version
    challengers: tuple[Challenger, ...] = ()
    unit_rule: UnitRule = UnitRule()
    shadows: tuple[Shadow, ...] = ()
    hosted: tuple[Hosted, ...] = ()
    """Of every version that was ever here, so that a rollback finds its way back."""

    def __post_init__(self) -> None:
        checked_group_name(self.name)
        versions = [challenger.version for challenger in self.challengers]
        if self.champion in versions or len(set(versions)) != len(versions):
            raise WeightsRefused("A version stands once in a group: as its champion or as one challenger.")
        if len(versions) > MAX_CHALLENGERS:
            raise WeightsRefused(
                f"A group has at most {MAX_CHALLENGERS} challengers; this one would have {len(versions)}."
            )
        owned = [bucket for challenger in self.challengers for bucket in challenger.buckets]
        if len(set(owned)) != len(owned) or any(not 0 <= bucket < BUCKETS for bucket in owned):
            raise WeightsRefused(f"Challengers' buckets must lie in 0..{BUCKETS - 1} and not overlap.")
        mirrored = [shadow.version for shadow in self.shadows]
        if len(set(mirrored)) != len(mirrored) or self.champion in mirrored or len(mirrored) > MAX_SHADOWS:
            raise WeightsRefused(
                f"A group has at most {MAX_SHADOWS} shadows, each named once, its champion not among them."
            )
        if any(not 0 <= shadow.share_bp <= BUCKETS for shadow in self.shadows):
            raise WeightsRefused(f"A shadow's share is given in basis points from 0 to {BUCKETS}.")

    @property
    def versions(self) -> tuple[Version, ...]:
        """Champion first, then challengers in their order."""
        return (self.champion, *(challenger.version for challenger in self.challengers))

    def host_of(self, urn: str, version: int) -> Hosted | None:
        """None for a version that a deployment answers for."""
        return next((one for one in self.hosted if (one.version.urn, one.version.version) == (urn, version)), None)

    @cached_property
    def arm_of_bucket(self) -> bytes:
        """Index into `versions` for each bucket, so that choosing costs one hash and one look-up (10 kB a group)."""
        arms = bytearray(BUCKETS)
        for arm, challenger in enumerate(self.challengers, start=1):
            for start, end in challenger.buckets.ranges:
                arms[start:end] = bytes([arm]) * (end - start)
        return bytes(arms)

    @property
    def champion_weight_bp(self) -> int:
        """What the challengers leave, in basis points."""
        return BUCKETS - sum(challenger.weight_bp for challenger in self.challengers)


def bucket_of(group: str, unit: str) -> int:
    """0..9,999. Salted with the group's name, so that two groups' experiments do not share their unlucky users.

    blake2b and not `hash()`: the same unit must land in the same bucket in every process and after every restart.
    """
    digest = blake2b(f"{group}\x1f{unit}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def choose(group: Group, unit: str) -> Version:
    """The version which serves this unit: the same one for as long as no change of weights moves its bucket."""
    return group.versions[group.arm_of_bucket[bucket_of(group.name, unit)]]


def shadows_of(group: Group, served: Version, request_id: str) -> tuple[Version, ...]:
    """The versions that are sent this request too. Drawn by request and not by unit: nobody is in a shadow's way.

    A version never shadows itself, so a challenger that answered is left out.
    """
    if not group.shadows:
        return ()
    bucket = bucket_of(f"{group.name}\x1fshadow", request_id)
    return tuple(one.version for one in group.shadows if bucket < one.share_bp and one.version != served)


class Change(StrEnum):
    CREATED = "created"
    WEIGHTED = "weighted"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    MIRRORED = "mirrored"
    CONFIGURED = "configured"


@dataclass(frozen=True, slots=True)
class Revision:
    """One entry of a group's append-only log: the whole group as it was from here on, and how it came to be."""

    change: Change
    group: Group


def weigh(group: Group, weights_bp: Sequence[tuple[Version, int]], *, expected_revision: int) -> Group:
    """The group with these challengers, in basis points of 10,000. The list is whole: who is left out is out.

    Buckets move as little as the new shares allow. Shrinking arms give back first, so that growing ones can take what
    became free; a growing arm only ever adds.

    Raises RevisionConflict, and WeightsRefused when a weight lies outside 0..10,000, when they add up to more, or when
    a version is named twice or is the champion.
    """
    _require_revision(group, expected_revision)
    sizes = dict(weights_bp)
    if len(sizes) != len(weights_bp):
        raise WeightsRefused("Each challenger is named once in a list of weights.")
    for version, size in sizes.items():
        if not 0 <= size <= BUCKETS:
            raise WeightsRefused(f"The weight of {version} is {size}; give basis points from 0 to {BUCKETS}.")
    if (total := sum(sizes.values())) > BUCKETS:
        raise WeightsRefused(f"The challengers' weights add up to {total}; together they may take at most {BUCKETS}.")
    held = {challenger.version: sorted(challenger.buckets) for challenger in group.challengers}
    kept = {version: held.get(version, [])[:size] for version, size in sizes.items()}
    taken = {bucket for buckets in kept.values() for bucket in buckets}
    free = iter([bucket for bucket in range(BUCKETS) if bucket not in taken])
    challengers = tuple(
        Challenger(version, Buckets.of([*kept[version], *(next(free) for _ in range(size - len(kept[version])))]))
        for version, size in sizes.items()
    )
    return replace(group, revision=group.revision + 1, challengers=challengers)


def mirror(group: Group, shadows: Sequence[Shadow], *, expected_revision: int) -> Group:
    """The group with these shadows and no others. Raises RevisionConflict, WeightsRefused."""
    _require_revision(group, expected_revision)
    return replace(group, revision=group.revision + 1, shadows=tuple(shadows))


def configure(group: Group, *, expected_revision: int) -> Group:
    """The group at its next revision, with the same arms: what it is told beside them has changed.

    Raises RevisionConflict.
    """
    _require_revision(group, expected_revision)
    return replace(group, revision=group.revision + 1)


def host(group: Group, hosted: Iterable[Hosted]) -> Group:
    """The group in which these providers answer for these versions, in place of whoever did."""
    found = {one.version: one for one in (*group.hosted, *hosted)}
    return replace(group, hosted=tuple(found.values()))


def hosted_of(stored: Iterable[Mapping[str, Any]]) -> tuple[Hosted, ...]:
    """As `group_revision.hosted` keeps them."""
    return tuple(
        Hosted(Version(one["urn"], one["version"], one["digest"]), one["provider"], one["model"], one["statement"])
        for one in stored
    )


def promote(group: Group, version: Version, *, expected_revision: int) -> Group:
    """The group with `version` as its champion; the old champion leaves it, other challengers keep their buckets.

    Whether `version` may be promoted (deployed, approved, approval bound to its digest) is the handler's question.

    Raises RevisionConflict, AlreadyChampion.
    """
    _require_revision(group, expected_revision)
    if version == group.champion:
        raise AlreadyChampion(group.name, str(version))
    return _crowned(group, version)


def roll_back(group: Group, history: Sequence[Revision], *, expected_revision: int) -> Group:
    """The group with the champion that the latest promotion replaced; the version rolled back from gets no traffic.

    `history` is the group's log, oldest first. Rolling back twice goes back two promotions, never forth again.

    Raises RevisionConflict, NothingToRollBackTo.
    """
    _require_revision(group, expected_revision)
    champions: list[Version] = []
    for entry in history:
        if entry.change in (Change.CREATED, Change.PROMOTED):
            champions.append(entry.group.champion)
        elif entry.change is Change.ROLLED_BACK:
            champions.pop()
    if len(champions) < 2:
        raise NothingToRollBackTo(group.name)
    return _crowned(group, champions[-2])


def label_text(value: bool | int | float | str) -> str:
    """A label in the one spelling in which predictions meet ground truth: `True`, `1` and `1.0` are `'1'`."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def without(group: Group, version: Version, *, expected_revision: int) -> Group:
    """The group without one of its challengers; the champion gets its units, everybody else stays where they are.

    Raises RevisionConflict.
    """
    others = [(one.version, one.weight_bp) for one in group.challengers if one.version != version]
    return weigh(group, others, expected_revision=expected_revision)


def withdrawn(version: Version, at: datetime, why: str) -> str:
    """The sentence that says that a version answers no longer."""
    return f"{version} was withdrawn at {at:%Y-%m-%dT%H:%M:%SZ} ({why}); promote another version or deploy it again."


def _crowned(group: Group, version: Version) -> Group:
    others = tuple(challenger for challenger in group.challengers if challenger.version != version)
    shadows = tuple(shadow for shadow in group.shadows if shadow.version != version)
    return replace(group, revision=group.revision + 1, champion=version, challengers=others, shadows=shadows)


def _require_revision(group: Group, expected: int) -> None:
    if group.revision != expected:
        raise RevisionConflict(group.name, expected, group.revision)
