"""What a ramp does next: a pure function of its plan, its state, the time and what was measured.

The worker applies the actions and stores the state in one transaction, so that a step is done once or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from services.router.ramps.plan import Analysis, SteppedPlan

MANY_ERRORS = 5


class Phase(StrEnum):
    """The last three are ends."""

    RUNNING = "running"
    PAUSED = "paused"
    WATCHING = "watching"
    COMPLETED = "completed"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"

    @property
    def is_over(self) -> bool:
        return self in (Phase.COMPLETED, Phase.ABORTED, Phase.ROLLED_BACK)


class Why(StrEnum):
    """Why a ramp is paused."""

    STEP = "step"
    PERSON = "person"
    INCONCLUSIVE = "inconclusive"
    MISMATCH = "mismatch"
    CHANGED = "changed"
    ERRORS = "errors"


class Tally(BaseModel):
    """How an analysis went so far."""

    model_config = ConfigDict(frozen=True)

    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    measured_at: datetime | None = None


class State(BaseModel):
    """How far a ramp is. `entered_at` is when the present step, or the watch, began; pauses do not count."""

    model_config = ConfigDict(frozen=True)

    phase: Phase = Phase.RUNNING
    step: int = 0
    entered_at: datetime
    weight_bp: int = 0
    mirror_bp: int = 0
    tallies: dict[str, Tally] = {}
    paused_at: datetime | None = None
    paused_from: Phase = Phase.RUNNING
    why: Why | None = None
    promoted_revision: int | None = None
    errors: int = 0
    rounds: int = 0


class Reading(NamedTuple):
    """A metric's value between `low` and `high`, from n rows."""

    low: float
    value: float
    high: float
    n: int


class Evidence(NamedTuple):
    """What was measured: a reading an analysis, none where there are too few rows; and whether the split is broken."""

    readings: Mapping[Analysis, Reading | None]
    mismatch: str | None = None


NOTHING = Evidence({})


class SetWeight(NamedTuple):
    weight_bp: int


class SetWeights(NamedTuple):
    """A bandit's: the challengers in the plan's order."""

    weights_bp: tuple[int, ...]


class SetMirror(NamedTuple):
    share_bp: int


class Promote(NamedTuple):
    pass


class TakeBack(NamedTuple):
    """The challenger gets no traffic any more; after its promotion, the former champion is champion again."""

    reason: str
    promoted: bool


class Note(NamedTuple):
    """For the ramp's log."""

    what: str
    details: Mapping[str, object] = {}


Action = SetWeight | SetWeights | SetMirror | Promote | TakeBack | Note


class Advanced(NamedTuple):
    state: State
    actions: tuple[Action, ...] = ()


def due_analyses(plan: SteppedPlan, state: State, now: datetime) -> list[tuple[str, Analysis]]:
    """Analyses that are to be measured now, by the key of their tally."""
    return [(key, one) for key, one in _active(plan, state) if _next_look(one, state, key) <= now]


def next_at(plan: SteppedPlan, state: State, now: datetime) -> datetime | None:
    """When there is something to do next; None when only a person moves the ramp on."""
    if state.phase in (Phase.PAUSED, Phase.COMPLETED, Phase.ABORTED, Phase.ROLLED_BACK):
        return None
    moments = [_next_look(one, state, key) for key, one in _active(plan, state)]
    if state.phase is Phase.WATCHING:
        assert plan.watch is not None
        moments.append(state.entered_at + plan.watch.duration)
    elif state.step >= len(plan.steps):
        moments.append(now)
    else:
        step = plan.steps[state.step]
        if step.pause is not None and step.pause.duration is not None:
            moments.append(state.entered_at + step.pause.duration)
        elif step.analysis is None:
            moments.append(now)
    return min(moments)


def advance(plan: SteppedPlan, state: State, now: datetime, evidence: Evidence = NOTHING) -> Advanced:
    """Go on as far as time and evidence allow.

    `evidence` holds a reading for each of `due_analyses`. Called again at the same time with the same evidence it does
    nothing more. A broken split pauses the ramp: nobody is promoted, or taken back, on figures that mean nothing.
    """
    if state.phase is Phase.PAUSED or state.phase.is_over:
        return Advanced(state)
    if evidence.mismatch is not None and state.phase is Phase.RUNNING:
        return _paused(state, now, Why.MISMATCH, evidence.mismatch)
    done: list[Action] = []
    for key, analysis in due_analyses(plan, state, now):
        if analysis not in evidence.readings:
            continue
        state, said = _measured(analysis, state, key, now, evidence.readings[analysis])
        done.append(said)
        tally = state.tallies[key]
        if tally.failed > analysis.failure_limit:
            back = _taken_back(state, f"{analysis.metric} failed its analysis {tally.failed} times")
            return Advanced(back.state, (*done, *back.actions))
        limit = analysis.inconclusive_limit
        if limit is not None and tally.inconclusive > limit:
            held = _paused(
                state, now, Why.INCONCLUSIVE, f"{analysis.metric} was inconclusive {tally.inconclusive} times"
            )
            return Advanced(held.state, (*done, *held.actions))
    while state.phase is Phase.RUNNING:
        moved = _step(plan, state, now)
        if moved is None:
            break
        state = moved.state
        done += moved.actions
    if state.phase is Phase.WATCHING and plan.watch is not None and now >= state.entered_at + plan.watch.duration:
        state = state.model_copy(update={"phase": Phase.COMPLETED})
        done.append(Note("completed", {"watched_s": plan.watch.duration.total_seconds()}))
    return Advanced(state, tuple(done))


def _step(plan: SteppedPlan, state: State, now: datetime) -> Advanced | None:
    """One step on; None when the present one is not over."""
    if state.step >= len(plan.steps):
        return _end(plan, state, now)
    step = plan.steps[state.step]
    if step.set_weight is not None:
        weight = round(step.set_weight * 100)
        return _entered(state.model_copy(update={"weight_bp": weight}), now, SetWeight(weight))
    if step.set_mirror_route is not None:
        share = round(step.set_mirror_route.percentage * 100)
        return _entered(state.model_copy(update={"mirror_bp": share}), now, SetMirror(share))
    if step.analysis is not None:
        tally = state.tallies.get("step", Tally())
        return _entered(state, now) if tally.successful >= step.analysis.count else None
    assert step.pause is not None
    if step.pause.duration is None:
        return _paused(state, now, Why.STEP, f"step {state.step + 1} waits for a person")
    return _entered(state, now) if now >= state.entered_at + step.pause.duration else None


def _end(plan: SteppedPlan, state: State, now: datetime) -> Advanced:
    if not plan.promote:
        return Advanced(state.model_copy(update={"phase": Phase.COMPLETED}), (Note("completed"),))
    phase = Phase.COMPLETED if plan.watch is None else Phase.WATCHING
    after = state.model_copy(update={"phase": phase, "entered_at": now, "tallies": {}})
    return Advanced(after, (Promote(),))


def pause(state: State, now: datetime, who: str) -> Advanced:
    """A person's pause, of a ramp that runs or watches."""
    return _paused(state, now, Why.PERSON, f"paused by {who}")


def resume(state: State, now: datetime, who: str) -> Advanced:
    """A person's go-ahead: past a pause that waited for it; else where it stood, with the analyses begun anew."""
    assert state.paused_at is not None
    update: dict[str, object] = {"phase": state.paused_from, "paused_at": None, "why": None, "errors": 0}
    if state.why is Why.STEP:
        update |= {"step": state.step + 1, "entered_at": now, "tallies": _kept(state)}
    else:
        update["entered_at"] = state.entered_at + (now - state.paused_at)
        update["tallies"] = {} if state.why is Why.INCONCLUSIVE else state.tallies
    return Advanced(state.model_copy(update=update), (Note("resumed", {"by": who}),))


def abort(state: State, who: str) -> Advanced:
    """A person's end: the challenger's traffic is taken back, its promotion too while it is watched."""
    promoted = Phase.WATCHING in (state.phase, state.paused_from if state.phase is Phase.PAUSED else None)
    after = state.model_copy(update={"phase": Phase.ABORTED, "weight_bp": 0, "mirror_bp": 0})
    return Advanced(after, (TakeBack(f"aborted by {who}", promoted),))


def held(state: State, now: datetime, why: Why, reason: str) -> Advanced:
    """Paused by what happened around the ramp: somebody else's change, or errors."""
    return _paused(state, now, why, reason)


def _paused(state: State, now: datetime, why: Why, reason: str) -> Advanced:
    update = {"phase": Phase.PAUSED, "paused_from": state.phase, "paused_at": now, "why": why}
    return Advanced(state.model_copy(update=update), (Note("paused", {"why": why.value, "reason": reason}),))


def _taken_back(state: State, reason: str) -> Advanced:
    promoted = state.phase is Phase.WATCHING
    after = state.model_copy(update={"phase": Phase.ROLLED_BACK, "weight_bp": 0, "mirror_bp": 0})
    return Advanced(after, (TakeBack(reason, promoted),))


def _entered(state: State, now: datetime, *actions: Action) -> Advanced:
    """At the beginning of the next step."""
    after = state.model_copy(update={"step": state.step + 1, "entered_at": now, "tallies": _kept(state)})
    return Advanced(after, actions)


def _kept(state: State) -> dict[str, Tally]:
    """Background analyses go on from step to step."""
    return {key: tally for key, tally in state.tallies.items() if key != "step"}


def _active(plan: SteppedPlan, state: State) -> list[tuple[str, Analysis]]:
    if state.phase is Phase.WATCHING:
        return [(f"watch/{at}", one) for at, one in enumerate(plan.watch.analyses if plan.watch else ())]
    if state.phase is not Phase.RUNNING:
        return []
    found = [(f"background/{at}", one) for at, one in enumerate(plan.background)]
    if state.step < len(plan.steps) and (own := plan.steps[state.step].analysis) is not None:
        found.append(("step", own))
    return found


def _next_look(analysis: Analysis, state: State, key: str) -> datetime:
    last = state.tallies.get(key, Tally()).measured_at
    return state.entered_at + analysis.initial_delay if last is None else last + analysis.interval


def _measured(analysis: Analysis, state: State, key: str, now: datetime, reading: Reading | None) -> tuple[State, Note]:
    outcome = assess(analysis, reading)
    before = state.tallies.get(key, Tally())
    tally = before.model_copy(update={outcome: getattr(before, outcome) + 1, "measured_at": now})
    details: dict[str, object] = {"analysis": key, "metric": analysis.metric, "outcome": outcome}
    if reading is not None:
        details |= {name: _finite(value) for name, value in reading._asdict().items()}
    return state.model_copy(update={"tallies": {**state.tallies, key: tally}}), Note("measured", details)


def assess(analysis: Analysis, reading: Reading | None) -> str:
    """`successful`, `failed` or `inconclusive`."""
    if reading is None:
        return "inconclusive"
    low, high = reading.low, reading.high
    if analysis.failure is not None:
        if analysis.failure.hold(low, high):
            return "failed"
    elif analysis.success.exclude(low, high):
        return "failed"
    return "successful" if analysis.success.hold(low, high) else "inconclusive"


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
