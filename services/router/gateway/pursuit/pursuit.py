"""One request's attempts: one after the other while that may help, or a second beside one that is late.

    start -> attempt -> fails -> another, within number, time and budget -> … -> an answer, or the last failure
                  `-> is late -> a hedge beside it; who has something first answers, and the other is let go

Nothing is tried again once anything of an answer went to the client.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from math import ceil
from typing import Protocol

from services.router.errors import TargetsUnavailable, UpstreamTimeoutError
from services.router.gateway.caps.prices import cost_of
from services.router.gateway.protocols.base import status_of
from services.router.gateway.pursuit.attempt import Attempt
from services.router.gateway.pursuit.breaker import Breaker, State
from services.router.gateway.pursuit.judging import RETRIED, is_targets_fault, may_retry
from services.router.gateway.pursuit.memory import Memory
from services.router.gateway.pursuit.plan import Candidate
from services.router.gateway.pursuit.story import ABANDONED, OK, Attempted, Story
from services.router.gateway.rows import Answer
from services.router.gateway.translator import Translator
from services.router.gateway.upstream import Pools
from shared.errors import MintmarkError

BACKOFF_S = 0.025
MOST_BACKOFF_S = 1.0
"""Before the same target is asked again: doubled each time, and shortened at random, so that callers keep no step."""


class Owner(Protocol):
    """The exchange whose request it is. It hears `won` once, then what came of it."""

    @property
    def streams(self) -> bool:
        """Whether the client asked for a stream."""

    def prepared(self, candidate: Candidate) -> tuple[Translator, bytes, bytes | None]:
        """A translator of this attempt's own, the bytes to send, the row's features. Raises MintmarkError."""

    def default_timeout_s(self, candidate: Candidate) -> float: ...

    def won(self, attempt: Attempt) -> None:
        """This attempt is the one to be told of in answer and row."""

    def whole(self, status: int, answer: Answer) -> None: ...

    def flows(self, status: int, heads: bytes, data: bytes, last: Answer | None) -> None:
        """A stream's first bytes; `last` when they are its last too."""

    def chunk(self, data: bytes) -> None: ...

    def ended(self) -> None: ...

    def failed(self, error: MintmarkError) -> None: ...


class Pursuit:
    """Made for one request of a group that has the section `routing`."""

    __slots__ = (
        "_again", "_began", "_candidates", "_done", "_hedge", "_last", "_live", "_loop", "_memory", "_owner", "_pools",
        "_queue", "_story", "_total",
    )  # fmt: skip

    def __init__(self, owner: Owner, memory: Memory, pools: Pools, candidates: list[Candidate], story: Story) -> None:
        self._owner = owner
        self._memory = memory
        self._pools = pools
        self._candidates = candidates
        self._story = story
        self._loop = asyncio.get_running_loop()
        self._began = time.perf_counter()
        self._queue = self._ordered()
        self._live: list[Attempt] = []
        self._last: tuple[Attempt, int, Answer | MintmarkError] | None = None
        self._done = False
        self._total: asyncio.TimerHandle | None = None
        self._hedge: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Make the first attempt. Raises TargetsUnavailable, and what the request itself is refused for."""
        self._memory.budget.asked(self._began)
        candidate = self._pick()
        refused: MintmarkError | None = None
        while candidate is not None:
            try:
                self._ask(candidate)
                break
            except MintmarkError as error:
                if not candidate.tier:
                    raise
                refused = refused or error
                self._story.skipped[candidate.key] = error.code
                candidate = self._pick()
        else:
            raise refused or self._unavailable()
        total_s = self._memory.section.timeouts.total_s
        if total_s is not None:
            self._total = self._loop.call_later(total_s, self._out_of_time)
        self._plan_hedge()

    # -- whom to ask

    def _ordered(self) -> list[Candidate]:
        """As they stand, but who is known not to be ready comes last: a probe may be wrong, and is no verdict."""
        unready = self._memory.unready
        if not unready:
            return list(self._candidates)
        ready = [one for one in self._candidates if one.key not in unready]
        if ready:
            for one in self._candidates:
                if one is ready[0]:
                    break
                self._story.skipped[one.key] = "not ready"
        return ready + [one for one in self._candidates if one.key in unready]

    def _pick(self) -> Candidate | None:
        """The next who was not asked yet; else, where the group lets it, one who was. None where nobody may be."""
        while self._queue:
            candidate = self._queue.pop(0)
            if self._may_ask(candidate):
                return candidate
        if self._memory.retries.same_target and self._story.attempts:
            asked = {(one.to, one.via) for one in self._story.attempts}
            for candidate in self._candidates:
                if (candidate.arm.name, candidate.via) in asked and self._may_ask(candidate):
                    return candidate
        return None

    def _may_ask(self, candidate: Candidate) -> bool:
        breaker = self._memory.breaker(candidate.key)
        if breaker is None or breaker.state is State.CLOSED or breaker.permits(time.perf_counter()):
            return True
        self._story.skipped[candidate.key] = "breaker open" if breaker.state is State.OPEN else "breaker half-open"
        return False

    def _unavailable(self) -> TargetsUnavailable:
        """Said at once, with the time at which somebody is tried again: waiting for nobody helps nobody."""
        now = time.perf_counter()
        waits = [b.retry_after_s(now) for one in self._candidates if (b := self._memory.breaker(one.key)) is not None]
        return TargetsUnavailable([one.key for one in self._candidates], max(1, ceil(min(waits, default=1.0))))

    def _ask(self, candidate: Candidate, hedge: bool = False) -> None:
        """Raises MintmarkError when this target cannot be asked this."""
        owner, memory = self._owner, self._memory
        translator, payload, features = owner.prepared(candidate)
        told = Attempted(candidate.arm.name, candidate.via, candidate.tier, is_hedge=hedge)
        attempt = Attempt(self, candidate, translator, features, told)
        attempt.asked = time.perf_counter()
        breaker = attempt.breaker = memory.breaker(candidate.key)
        if breaker is not None:
            attempt.permit = breaker.enter(attempt.asked)
            told.was_trial = breaker.state is State.HALF_OPEN
        timeouts = memory.section.timeouts
        timeout_s = timeouts.attempt_s or owner.default_timeout_s(candidate)
        if owner.streams and timeouts.attempt_s is not None:
            attempt.limit(timeouts.attempt_s)
        self._story.attempts.append(told)
        self._live.append(attempt)
        attempt.call = self._pools.of(candidate.target.endpoint).send(payload, attempt, timeout_s)

    # -- a second one beside a late one

    def _plan_hedge(self) -> None:
        hedge = self._memory.section.hedge
        if hedge is None or not self._live or self._memory.retries.most == 0:
            return
        latencies = self._memory.latencies(self._live[0].candidate.key, self._owner.streams)
        if latencies is not None and len(latencies) >= hedge.least_answers:
            late_s = max(latencies.percentile(), hedge.at_least_ms / 1000)
            self._hedge = self._loop.call_later(late_s, self._send_hedge)

    def _send_hedge(self) -> None:
        self._hedge = None
        if self._done or len(self._live) != 1:
            return
        self._one_more(hedge=True)

    # -- what attempts say

    def whole(self, attempt: Attempt, status: int, answer: Answer, final: bool) -> None:
        if self._done:
            return
        self._answered(attempt, status)
        if final:
            self._win(attempt)
            self._owner.whole(status, answer)
        else:
            self._failed(attempt, status, answer)

    def flows(self, attempt: Attempt, data: bytes) -> None:
        if self._done:
            return
        self._answered(attempt, attempt.status)
        self._win(attempt)
        self._owner.flows(attempt.status, attempt.heads, data, attempt.last)

    def more(self, attempt: Attempt, data: bytes) -> None:
        self._owner.chunk(data)

    def over(self, attempt: Attempt) -> None:
        self._owner.ended()

    def lost(self, attempt: Attempt, error: MintmarkError) -> None:
        if attempt.flowing:  # what went to the client cannot be taken back
            attempt.told.outcome = error.code
            breaker, now = attempt.breaker, time.perf_counter()
            if breaker is not None and breaker.state is State.CLOSED:
                breaker.failed(breaker.enter(now), now)
            self._owner.failed(error)
            return
        if self._done:
            return
        self._outcome(attempt, error.code, status_of(error), fails=is_targets_fault(error))
        if may_retry(error):
            self._failed(attempt, 0, error)
        else:
            self._win(attempt)
            self._owner.failed(error)

    def _answered(self, attempt: Attempt, status: int) -> None:
        fails = status >= 500
        self._outcome(attempt, OK if status < 400 else f"upstream-{status}", status, fails=fails)
        if not fails:
            self._note_latency(attempt, time.perf_counter())

    def _outcome(self, attempt: Attempt, outcome: str, status: int, *, fails: bool) -> None:
        now = time.perf_counter()
        told = attempt.told
        told.outcome, told.status, told.ms = outcome, status, (now - attempt.asked) * 1000
        if attempt in self._live:
            self._live.remove(attempt)
        _give_back(attempt, fails, now)

    def _note_latency(self, attempt: Attempt, now: float) -> None:
        latencies = self._memory.latencies(attempt.candidate.key, self._owner.streams)
        if latencies is not None:
            latencies.add(now - attempt.asked)

    def _failed(self, attempt: Attempt, status: int, what: Answer | MintmarkError) -> None:
        """This attempt was in vain, and another may not be."""
        self._last = (attempt, status, what)
        _price(attempt, what if isinstance(what, Answer) else None)
        if not self._live and not self._one_more():
            self._give_up()

    def _one_more(self, hedge: bool = False) -> bool:
        """A further attempt, now or in a moment, if number, budget and targets allow it."""
        memory, story = self._memory, self._story
        if len(story.attempts) > memory.retries.most:
            story.no_more = "" if hedge else "as many attempts as allowed"
            return False
        known = {(one.to, one.via) for one in story.attempts}
        candidate = self._pick()
        if candidate is None:
            story.no_more = "" if hedge else "no other target"
            return False
        if not memory.budget.spend(time.perf_counter()):
            story.no_more = "the retry budget is spent"
            if hedge:  # whoever is late may still fail, and then this one is asked in its place
                self._queue.insert(0, candidate)
            return False
        if not hedge and (candidate.arm.name, candidate.via) in known:
            delay_s = min(BACKOFF_S * 2 ** (len(story.attempts) - 1), MOST_BACKOFF_S) * random.uniform(0.5, 1.0)
            self._again = self._loop.call_later(delay_s, self._ask_again, candidate)
            return True
        try:
            self._ask(candidate, hedge)
        except MintmarkError as error:  # what this target does not take, the next one may
            story.skipped[candidate.key] = error.code
            return self._one_more(hedge)
        return True

    def _ask_again(self, candidate: Candidate) -> None:
        self._again = None
        try:
            if not self._may_ask(candidate):  # its breaker opened meanwhile
                self._give_up()
                return
            self._ask(candidate)
        except MintmarkError:
            self._give_up()

    # -- the end

    def _win(self, attempt: Attempt) -> None:
        """Whatever comes of this attempt is the client's; others are let go."""
        self._done = True
        for timer in (self._total, self._hedge, self._again):
            if timer is not None:
                timer.cancel()
        self._total = self._hedge = self._again = None
        now = time.perf_counter()
        for other in self._live:
            other.drop()
            other.told.outcome = ABANDONED
            other.told.ms = (now - other.asked) * 1000
            _price(other, None)
            self._note_latency(other, now)  # at least that; leaving it out would make late answers look rare
            if other.breaker is not None:
                other.breaker.dropped(other.permit)
        self._live.clear()
        self._last = None
        self._owner.won(attempt)
        attempt.call = None  # the owner's now; it knows this attempt, and a circle waits for the garbage collector

    def _give_up(self) -> None:
        """The last failure is the answer."""
        assert self._last is not None
        attempt, status, what = self._last
        self._win(attempt)
        if isinstance(what, MintmarkError):
            self._owner.failed(what)
        else:
            attempt.told.cost_usd = None  # the answer's own, which the row has
            self._owner.whole(status, what)

    def _out_of_time(self) -> None:
        self._total = None
        if self._done:
            return
        self._story.no_more = "no time left"
        attempt = self._live[0] if self._live else self._last[0] if self._last is not None else None
        assert attempt is not None, "an attempt is under way, or failed and is tried again"
        for late in list(self._live):
            late.drop()
            _price(late, None)
            self._outcome(late, UpstreamTimeoutError.code, UpstreamTimeoutError.status, fails=True)
        self._win(attempt)
        count, total_s = len(self._story.attempts), self._memory.section.timeouts.total_s
        self._owner.failed(UpstreamTimeoutError(f"No answer came within {total_s:g} s, in {count} attempts."))


def _price(attempt: Attempt, answer: Answer | None) -> None:
    """What an attempt in vain has cost: its tokens, where it told of any before it failed or was let go."""
    rates = attempt.candidate.arm.rates
    if rates is None:
        return
    if answer is None and (not attempt.status or attempt.status in RETRIED):
        return  # no stream began, or the answer was not waited for: nothing is known of it
    told = answer if answer is not None else attempt.translator.so_far()
    if told.input_tokens or told.output_tokens:
        ms = (time.perf_counter() - attempt.asked) * 1000
        known = replace(told, input_tokens=told.input_tokens or 0, output_tokens=told.output_tokens or 0)
        attempt.told.cost_usd = cost_of(rates, known, ms)


def _give_back(attempt: Attempt, fails: bool, now: float) -> None:
    breaker: Breaker | None = attempt.breaker
    if breaker is None:
        return
    if fails:
        breaker.failed(attempt.permit, now)
    else:
        breaker.succeeded(attempt.permit, now)
