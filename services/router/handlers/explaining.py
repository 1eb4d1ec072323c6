"""Why a request went where it went: from its row, its tags (gateway/pursuit/story.py) and the revision. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.router.domain import BUCKETS, Buckets, Group, Version
from services.router.store import Row


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: `to` is the version, `via` the provider it was asked at, where that is not its own place.

    `breaker` is `half-open` for a trial of a target that was left alone; it was closed otherwise, as an open one is not
    asked. `outcome` is `ok`, an error's code, `upstream-<status>`, or `abandoned` for who was slower than a hedge.
    """

    to: str
    outcome: str
    ms: float | None
    via: str = ""
    tier: str = ""
    hedge: bool = False
    breaker: str = "closed"


@dataclass(frozen=True, slots=True)
class Told:
    """What a row's tags say, with what they leave out because it is ordinary."""

    rule: str | None
    rule_to: str | None
    gave_way: str
    attempts: tuple[Attempt, ...]
    skipped: tuple[tuple[str, str], ...]
    """Targets that were not asked, each with its reason: `breaker open`, `not ready`, or an error's code."""
    cache: str | None
    no_more: str
    failed_over: bool

    @staticmethod
    def of(row: Row) -> Told:
        tags: Mapping[str, Any] = row["tags"] or {}
        route = tags.get("route") or {}
        attempts = tuple(Attempt(**one) for one in tags.get("attempts", ()))
        if not attempts and row["attempts"] and row["asset"] is not None:
            outcome = row["error_code"] or "ok"
            attempts = (Attempt(f"{row['asset']}@{row['version']}", outcome, row["upstream_ms"]),)
        return Told(
            rule=route.get("rule"),
            rule_to=route.get("to"),
            gave_way=tags.get("gave_way", ""),
            attempts=attempts,
            skipped=tuple((one["to"], one["why"]) for one in tags.get("skipped", ())),
            cache=tags.get("cache"),
            no_more=tags.get("no_more", ""),
            failed_over=bool(tags.get("failed_over")),
        )


def ranges_of(group: Group) -> tuple[tuple[Version, tuple[tuple[int, int], ...]], ...]:
    """Whose the buckets were: each version with its half-open ranges, the champion with what the others leave."""
    taken = {bucket for one in group.challengers for bucket in one.buckets}
    rest = Buckets.of(bucket for bucket in range(BUCKETS) if bucket not in taken)
    return ((group.champion, rest.ranges), *((one.version, one.buckets.ranges) for one in group.challengers))


def explain(group: Group, bucket: int, chosen: Version, served: Version | None, row: Row) -> str:
    """Why the request went where it went, in a sentence or two."""
    if served is None:
        return f"The request was refused ({row['error_code']}) before a version was chosen."
    shadow_of: UUID | None = row["shadow_of"]
    if shadow_of is not None:
        share = next((one.share_bp for one in group.shadows if one.version == served), None)
        had = "" if share is None else f", which is sent {share / 100:g} % of them"
        return (
            f"This is a copy of the request {shadow_of}, sent to the shadow {served}{had}; nobody was given its answer."
        )
    told = Told.of(row)
    return " ".join((_choice(group, bucket, chosen, served, row, told), *_course(served, told)))


def _choice(group: Group, bucket: int, chosen: Version, served: Version, row: Row, told: Told) -> str:
    ruled = ""
    if told.rule is not None:
        ruled = (
            f"At revision {group.revision} the rule {told.rule!r} was the first to match, and sends to {told.rule_to}"
        )
        if not told.gave_way:
            return f"{ruled}."
        ruled += f"; it gave way, as {told.gave_way.rstrip('.')}. "
    share = next((one.weight_bp for one in group.challengers if one.version == chosen), group.champion_weight_bp)
    role = "champion" if chosen == group.champion else "challenger"
    whose = (
        f"{ruled}At revision {group.revision} bucket {bucket} of {BUCKETS} belonged to the {role} {chosen}, "
        f"which had {share / 100:g} % of them"
    )
    if served == chosen or told.failed_over:
        return f"{whose}; the unit {row['unit']!r} falls into this bucket at every request."
    return f"{whose} but had no verified approval or endpoint at the gateway, so the champion {served} answered."


def _course(served: Version, told: Told) -> list[str]:
    """What came of it, where that is not one attempt that answered."""
    if told.cache is not None:
        return [f"{served} had answered the very same request of late: its answer came from the cache."]
    said = [f"{to} was not asked: {why}." for to, why in told.skipped]
    for one in told.attempts[:-1] if len(told.attempts) > 1 else ():
        said.append(f"{_target(one)} was asked and gave {one.outcome}.")
    if told.attempts and (said or told.attempts[-1].outcome != "ok"):
        last = told.attempts[-1]
        said.append(f"{_target(last)} {'answered' if last.outcome == 'ok' else f'gave {last.outcome}'}.")
    if told.no_more:
        said.append(f"No further attempt was made: {told.no_more}.")
    return said


def _target(attempt: Attempt) -> str:
    where = f" at {attempt.via}" if attempt.via else ""
    return f"{attempt.to}{where}" + (f" ({attempt.tier})" if attempt.tier else "")
