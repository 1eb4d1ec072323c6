"""Watches callers: one observation a request, after its answer; says what looks like an attack, once an hour a kind."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from services.router.gateway.suspicion.sketches import (
    Distinct,
    Vector,
    evenness,
    near_texts,
    near_vectors,
    simhash,
    vector_of,
)
from services.router.group_settings.guardrails import Suspicion

MOST_CALLERS = 512
RECENT = 128
SAMPLE = 256
HOUR_S, DUPLICATES_S, PROBING_S = 3600.0, 60.0, 600.0
OBSERVED_A_SECOND = 50
"""Of one caller; beyond it requests are not looked at, which a scraper at that rate does not escape by."""
EVEN = 0.93
"""Evenness of a scraper; the census' people have 0.53, uniform samples 0.99."""
NEAR_BOUNDARY = 0.1
QUIET_S = 3600.0


@dataclass(frozen=True, slots=True)
class Suspect:
    """`kind` is the guardrail's name in guardrail.tripped."""

    kind: str
    reason: str


@dataclass(slots=True)
class _Seen:
    at: float
    digest: int
    text: int | None
    vector: Vector | None
    score: float | None


@dataclass(slots=True)
class _Caller:
    recent: deque[_Seen] = field(default_factory=lambda: deque(maxlen=RECENT))
    sample: list[Vector] = field(default_factory=list)
    sampled: int = 0
    distinct: Distinct = field(default_factory=Distinct)
    since: float = 0.0
    judged_at: float = 0.0
    said: dict[str, float] = field(default_factory=dict)
    second: int = 0
    in_second: int = 0


class Watch:
    """Of one gateway process. Times are monotonic seconds."""

    def __init__(self, seed: int | None = None) -> None:
        self._callers: OrderedDict[tuple[str, str], _Caller] = OrderedDict()
        self._random = random.Random(seed)

    def observe(
        self, group: str, caller: str, limits: Suspicion, *, features: bytes | None, text: str | None,
        score: float | None, now: float,
    ) -> list[Suspect]:  # fmt: skip
        """One answered request: the model's features as JSON, or the text that was asked. What it makes suspicious."""
        one = self._caller(group, caller, now)
        if int(now) != one.second:
            one.second, one.in_second = int(now), 0
        one.in_second += 1
        if one.in_second > OBSERVED_A_SECOND:
            return []
        content = features if features is not None else (text or "").encode("utf-8", "replace")
        if not content:
            return []
        vector = vector_of(features) if features is not None else None
        seen = _Seen(
            now, int.from_bytes(blake2b(content, digest_size=8).digest(), "big"),
            simhash(text or "") if features is None else None, vector, score,
        )  # fmt: skip
        self._keep(one, seen)
        found = [*self._near(caller, one, seen, limits), *self._scraping(caller, one, limits)]
        one.recent.append(seen)
        fresh = [suspect for suspect in found if now - one.said.get(suspect.kind, -QUIET_S) >= QUIET_S]
        for suspect in fresh:
            one.said[suspect.kind] = now
        return fresh

    def _caller(self, group: str, caller: str, now: float) -> _Caller:
        found = self._callers.get((group, caller))
        if found is None:
            found = self._callers[group, caller] = _Caller(since=now)
            if len(self._callers) > MOST_CALLERS:
                self._callers.popitem(last=False)
        self._callers.move_to_end((group, caller))
        if now - found.since > HOUR_S:
            found.since, found.distinct, found.sample, found.sampled = now, Distinct(), [], 0
            found.judged_at = 0.0
        return found

    def _keep(self, one: _Caller, seen: _Seen) -> None:
        one.distinct.add(seen.digest)
        if seen.vector is None or (one.sample and len(one.sample[0]) != len(seen.vector)):
            return
        one.sampled += 1
        if len(one.sample) < SAMPLE:
            one.sample.append(seen.vector)
        elif (place := self._random.randrange(one.sampled)) < SAMPLE:
            one.sample[place] = seen.vector

    def _near(self, caller: str, one: _Caller, seen: _Seen, limits: Suspicion) -> list[Suspect]:
        near = [other for other in self._like(one, seen) if other.digest != seen.digest]
        found: list[Suspect] = []
        at_once = {other.digest for other in near if seen.at - other.at <= DUPLICATES_S}
        if len(at_once) + 1 >= limits.duplicates:
            reason = f"{caller} sent {len(at_once) + 1} near-duplicates of one input within a minute"
            found.append(Suspect("near-duplicates", reason))
        if _is_close(seen.score):
            line = [other for other in near if seen.at - other.at <= PROBING_S and _is_close(other.score)]
            sides = [(other.score or 0.0) >= 0.5 for other in (*line, seen)]
            turns = sum(before != after for before, after in pairwise(sides))
            if len({other.digest for other in line}) + 1 >= limits.probing and turns * 4 >= limits.probing:
                reason = (
                    f"{caller} sent {len(line) + 1} near-duplicates of one input with scores around 0.5 "
                    f"that changed sides {turns} times"
                )
                found.append(Suspect("boundary-probing", reason))
        return found

    def _like(self, one: _Caller, seen: _Seen) -> list[_Seen]:
        if seen.vector is not None:
            length = len(seen.vector)
            pairs = [
                (other, other.vector)
                for other in one.recent
                if other.vector is not None and len(other.vector) == length
            ]
            if not pairs:
                return []
            places = near_vectors(seen.vector, np.stack([vector for _, vector in pairs]))
            return [pairs[place][0] for place in places]
        texts = [other for other in one.recent if other.text is not None]
        return [texts[place] for place in near_texts(seen.text or 0, [other.text or 0 for other in texts])]

    def _scraping(self, caller: str, one: _Caller, limits: Suspicion) -> list[Suspect]:
        estimate = one.distinct.estimate
        if estimate < limits.scraping_distinct or len(one.sample) < min(SAMPLE, limits.scraping_distinct):
            return []
        if estimate < one.judged_at * 1.1:
            return []  # looked at a while ago
        one.judged_at = estimate
        even = evenness(np.stack(one.sample))
        if even < EVEN:
            return []
        reason = (
            f"{caller} sent about {estimate:.0f} distinct inputs within an hour, spread over the features "
            f"with an evenness of {even:.2f}"
        )
        return [Suspect("scraping", reason)]


def _is_close(score: float | None) -> bool:
    return score is not None and abs(score - 0.5) <= NEAR_BOUNDARY
