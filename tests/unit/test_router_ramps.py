"""Ramps without a database: plans, every step of the machine, weights by results, and buckets that never flip back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.router.comparison.aggregates import Moments
from services.router.domain import BUCKETS, Group, Shadow, Version, bucket_of, mirror, promote, shadows_of, weigh
from services.router.errors import WeightsRefused
from services.router.ramps import machine
from services.router.ramps.bandit import thompson_weights
from services.router.ramps.machine import (
    Advanced,
    Evidence,
    Note,
    Phase,
    Promote,
    Reading,
    SetMirror,
    SetWeight,
    State,
    TakeBack,
    Why,
    advance,
    due_analyses,
    next_at,
)
from services.router.ramps.plan import BanditPlan, Plan, SteppedPlan

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CHALLENGER = {"urn": "mm:model/x", "version": 2}
PLANS: TypeAdapter[Any] = TypeAdapter(Plan)
ANALYSIS = {"metric": "accuracy", "success": {"min": -0.01}, "interval": "1m", "count": 2, "failureLimit": 1}
GOOD, BAD, UNSURE = (
    Reading(0.0, 0.02, 0.04, 5_000),
    Reading(-0.08, -0.05, -0.02, 5_000),
    Reading(-0.05, 0.01, 0.07, 200),
)


def plan(*steps: dict[str, Any], **more: Any) -> SteppedPlan:
    found = PLANS.validate_python({"challenger": CHALLENGER, "steps": list(steps), **more})
    assert isinstance(found, SteppedPlan)
    return found


def later(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def run(of: SteppedPlan, state: State, now: datetime, reading: Reading | None = None, **more: Any) -> Advanced:
    """Advance with the same reading for all that is due."""
    due = {analysis: reading for _, analysis in due_analyses(of, state, now)}
    return advance(of, state, now, Evidence(due, **more))


BEGIN = State(entered_at=NOON)


def test_steps_people_know_from_argo_in_their_order() -> None:
    ramp = plan({"setWeight": 10}, {"pause": {"duration": "10m"}}, {"setWeight": 50.5}, {"pause": {}})
    first = run(ramp, BEGIN, NOON)
    assert first.actions == (SetWeight(1_000),)
    assert (first.state.step, next_at(ramp, first.state, NOON)) == (1, later(10))
    assert run(ramp, first.state, later(9.9)).actions == ()
    second = run(ramp, first.state, later(10))
    assert second.actions[0] == SetWeight(5_050)
    assert (second.state.phase, second.state.why) == (Phase.PAUSED, Why.STEP)
    assert next_at(ramp, second.state, later(10)) is None
    assert run(ramp, second.state, later(99)) == Advanced(second.state)
    resumed = machine.resume(second.state, later(100), "user:rita").state
    last = run(ramp, resumed, later(100))
    assert (last.state.phase, last.actions) == (Phase.COMPLETED, (Promote(),))


def test_mirror_then_weight_without_promotion() -> None:
    ramp = plan({"setMirrorRoute": {"percentage": 35}}, {"setWeight": 5}, promote=False)
    done = run(ramp, BEGIN, NOON)
    assert done.actions == (SetMirror(3_500), SetWeight(500), Note("completed"))
    assert done.state.phase is Phase.COMPLETED


def test_an_analysis_needs_its_successes_and_is_looked_at_at_its_interval() -> None:
    ramp = plan({"analysis": ANALYSIS})
    once = run(ramp, BEGIN, NOON, GOOD)
    assert once.state.tallies["step"].successful == 1 and once.state.step == 0
    assert next_at(ramp, once.state, NOON) == later(1)
    assert due_analyses(ramp, once.state, later(0.5)) == []
    twice = run(ramp, once.state, later(1), GOOD)
    assert (twice.state.phase, twice.actions[-1]) == (Phase.COMPLETED, Promote())


def test_inconclusive_looks_are_waited_for_and_never_count_as_success() -> None:
    state, ramp = BEGIN, plan({"analysis": ANALYSIS})
    for minute in range(50):
        state = run(ramp, state, later(minute), UNSURE if minute % 2 else None).state
    assert (state.phase, state.tallies["step"].inconclusive, state.tallies["step"].successful) == (Phase.RUNNING, 50, 0)
    limited = plan({"analysis": {**ANALYSIS, "inconclusiveLimit": 1}})
    once = run(limited, BEGIN, NOON, UNSURE).state
    held = run(limited, once, later(1), UNSURE)
    assert (held.state.phase, held.state.why) == (Phase.PAUSED, Why.INCONCLUSIVE)
    again = machine.resume(held.state, later(5), "user:rita").state
    assert (again.phase, again.tallies) == (Phase.RUNNING, {})


def test_more_failures_than_allowed_take_the_challenger_back() -> None:
    ramp = plan({"setWeight": 10}, {"analysis": ANALYSIS})
    started = run(ramp, BEGIN, NOON, BAD)
    assert started.state.phase is Phase.RUNNING  # the analysis began after this look
    once = run(ramp, started.state, NOON, BAD)
    assert once.state.tallies["step"].failed == 1
    twice = run(ramp, once.state, later(1), BAD)
    assert twice.state.phase is Phase.ROLLED_BACK
    (back,) = [action for action in twice.actions if isinstance(action, TakeBack)]
    assert not back.promoted and "accuracy" in back.reason
    assert run(ramp, twice.state, later(2), GOOD) == Advanced(twice.state)


def test_failure_bounds_replace_the_opposite_of_success() -> None:
    lenient = plan({"analysis": {**ANALYSIS, "failure": {"max": -0.1}, "failureLimit": 0}})
    assert run(lenient, BEGIN, NOON, BAD).state.tallies["step"].inconclusive == 1
    terrible = Reading(-0.4, -0.3, -0.2, 500)
    assert run(lenient, BEGIN, NOON, terrible).state.phase is Phase.ROLLED_BACK


def test_background_analyses_watch_every_step() -> None:
    ramp = plan({"setWeight": 10}, {"pause": {"duration": "1h"}}, background=[{**ANALYSIS, "failureLimit": 0}])
    paused = run(ramp, BEGIN, NOON, GOOD).state
    assert paused.phase is Phase.RUNNING and next_at(ramp, paused, NOON) == later(1)
    assert run(ramp, paused, later(30), BAD).state.phase is Phase.ROLLED_BACK


def test_a_broken_split_pauses_and_promotes_nobody() -> None:
    ramp = plan({"setWeight": 50})
    found = run(ramp, BEGIN, NOON, mismatch="p = 1e-9")
    assert (found.state.phase, found.state.why) == (Phase.PAUSED, Why.MISMATCH)
    assert not any(isinstance(action, Promote) for action in found.actions)


def test_the_watch_after_promotion_rolls_back_or_ends_well() -> None:
    ramp = plan({"setWeight": 50}, watch={"duration": "30m", "analyses": [{**ANALYSIS, "failureLimit": 0}]})
    promoted = run(ramp, BEGIN, NOON)
    assert (promoted.state.phase, promoted.actions) == (Phase.WATCHING, (SetWeight(5_000), Promote()))
    bad = run(ramp, promoted.state, later(3), BAD)
    assert bad.state.phase is Phase.ROLLED_BACK
    assert any(isinstance(action, TakeBack) and action.promoted for action in bad.actions)
    well = run(ramp, run(ramp, promoted.state, later(3), GOOD).state, later(30), UNSURE)
    assert well.state.phase is Phase.COMPLETED


def test_a_persons_pause_stops_the_clock() -> None:
    ramp = plan({"setWeight": 10}, {"pause": {"duration": "10m"}})
    waiting = run(ramp, BEGIN, NOON).state
    paused = machine.pause(waiting, later(4), "user:rita").state
    assert run(ramp, paused, later(60)).actions == ()
    resumed = machine.resume(paused, later(60), "user:rita").state
    assert next_at(ramp, resumed, later(60)) == later(66)


def test_abort_takes_back_a_promotion_only_while_it_is_watched() -> None:
    ramp = plan({"setWeight": 50}, watch={"duration": 60})
    assert [one.promoted for one in machine.abort(BEGIN, "u").actions if isinstance(one, TakeBack)] == [False]
    watching = run(ramp, BEGIN, NOON).state
    assert [one.promoted for one in machine.abort(watching, "u").actions if isinstance(one, TakeBack)] == [True]
    paused = machine.pause(watching, later(0.1), "u").state
    assert [one.promoted for one in machine.abort(paused, "u").actions if isinstance(one, TakeBack)] == [True]


steps_at_random = st.lists(
    st.one_of(
        st.floats(0, 100).map(lambda weight: {"setWeight": weight}),
        st.integers(0, 20).map(lambda minutes: {"pause": {"duration": f"{minutes}m"}}),
        st.integers(1, 3).map(lambda count: {"analysis": {**ANALYSIS, "count": count}}),
        st.integers(0, 100).map(lambda share: {"setMirrorRoute": {"percentage": share}}),
    ),
    min_size=1,
    max_size=8,
)


@given(steps_at_random, st.lists(st.sampled_from([GOOD, BAD, UNSURE, None]), min_size=1, max_size=30), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_plan_comes_to_an_end_or_waits_and_a_second_look_does_nothing(
    steps: list[dict[str, Any]], readings: list[Reading | None], watched: bool
) -> None:
    ramp = plan(*steps, **({"watch": {"duration": "5m", "analyses": [ANALYSIS]}} if watched else {}))
    state, promotions, backs = BEGIN, 0, 0
    for minute in range(400):
        reading = readings[minute % len(readings)]
        found = run(ramp, state, later(minute), reading)
        assert State.model_validate(found.state.model_dump(mode="json")) == found.state
        promotions += sum(isinstance(action, Promote) for action in found.actions)
        backs += sum(isinstance(action, TakeBack) for action in found.actions)
        state = found.state
        assert advance(ramp, state, later(minute)).actions == ()
        if not state.phase.is_over:
            due = next_at(ramp, state, later(minute))
            assert due is not None and due > later(minute) - timedelta(minutes=1)
    assert promotions <= 1 and backs <= 1
    assert (state.phase is Phase.ROLLED_BACK) == (backs == 1)
    if GOOD not in readings and any("analysis" in step for step in steps):
        assert promotions == 0


BAD_PLANS = (
    {"steps": []},
    {"steps": [{}]},
    {"steps": [{"setWeight": 10, "pause": {}}]},
    {"steps": [{"setWeight": 101}]},
    {"steps": [{"setWeight": float("nan")}]},
    {"steps": [{"setWieght": 10}]},
    {"steps": [{"pause": {"duration": "10 minutes"}}]},
    {"steps": [{"pause": {"duration": "-1s"}}]},
    {"steps": [{"pause": {"duration": "9999d"}}]},
    {"steps": [{"analysis": {"metric": "nonsense", "success": {"min": 0}}}]},
    {"steps": [{"analysis": {"metric": "accuracy", "success": {}}}]},
    {"steps": [{"analysis": {"metric": "accuracy", "success": {"min": 2, "max": 1}}}]},
    {"steps": [{"analysis": {"metric": "latency_p99", "success": {"max": 300}}}]},
    {"steps": [{"setWeight": 10}], "kind": "other"},
    {"kind": "bandit", "challengers": []},
    {"kind": "bandit", "challengers": [CHALLENGER], "floor": 60},
    {"kind": "bandit", "challengers": [CHALLENGER, CHALLENGER]},
    {"kind": "bandit", "challengers": [CHALLENGER], "metric": "auc"},
)


@pytest.mark.parametrize("bad", BAD_PLANS)
def test_a_plan_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    more = {} if bad.get("kind") == "bandit" else {"challenger": CHALLENGER}
    with pytest.raises(ValidationError):
        PLANS.validate_python({**more, **bad})


def test_durations_as_people_write_them() -> None:
    for said, seconds in (("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), (15, 15), ("1500ms", 1.5)):
        pause = plan({"pause": {"duration": said}}).steps[0].pause
        assert pause is not None and pause.duration == timedelta(seconds=seconds)
    again = plan({"pause": {"duration": "1h30m"}})
    assert PLANS.validate_python(again.model_dump(mode="json", by_alias=True, exclude_none=True)) == again
    bandit = PLANS.validate_python({"kind": "bandit", "challengers": [CHALLENGER]})
    assert isinstance(bandit, BanditPlan)


# -- bandit


def rate(n: int, successes: int) -> Moments:
    return Moments(n, successes, successes)


@given(st.lists(st.tuples(st.integers(2, 5_000), st.floats(0, 1)), min_size=2, max_size=6), st.integers(0, 1_000))
@settings(max_examples=60, deadline=None)
def test_weights_add_up_and_keep_the_floor(arms: list[tuple[int, float]], floor: int) -> None:
    weights = thompson_weights([rate(n, round(n * p)) for n, p in arms], floor_bp=floor, seed=1)
    assert sum(weights) == BUCKETS and min(weights) >= floor


def test_the_better_arm_gets_the_traffic_and_an_unknown_one_its_chance() -> None:
    clear = thompson_weights([rate(1_000, 800), rate(1_000, 900)], floor_bp=100)
    assert clear == [100, 9_900]
    worse = thompson_weights([rate(1_000, 800), rate(1_000, 900)], floor_bp=100, higher_is_better=False)
    assert worse == [9_900, 100]
    close = thompson_weights([rate(50, 40), rate(50, 42)], floor_bp=100)
    assert 1_500 < close[0] < 5_000
    assert thompson_weights([rate(1_000, 900), Moments(), Moments()], floor_bp=0) == [3_334, 3_333, 3_333]
    revenue = [Moments(100, 1_000.0, 12_000.0), Moments(100, 1_500.0, 25_000.0)]
    assert thompson_weights(revenue, floor_bp=200)[1] > 9_000
    with pytest.raises(ValueError):
        thompson_weights([Moments()] * 3, floor_bp=4_000)


def test_a_bandit_finds_the_best_of_three() -> None:
    random, truth = np.random.default_rng(5), (0.70, 0.72, 0.80)
    arms, served = [Moments(), Moments(), Moments()], [0, 0, 0]
    weights = [3_334, 3_333, 3_333]
    for epoch in range(40):
        for arm, p in enumerate(truth):
            n = int(500 * weights[arm] / BUCKETS)
            arms[arm] = arms[arm].plus(rate(n, int(random.binomial(n, p))))
            served[arm] += n
        weights = thompson_weights(arms, floor_bp=200, seed=epoch)
    share = served[2] / sum(served)
    print(
        f"of {sum(served):,} requests {share:.0%} went to the best of three arms; at the end {weights[2] / 100:.0f} %"
    )
    assert share > 0.7 and weights[2] > 9_000


# -- buckets, shadows


def version(number: int) -> Version:
    return Version("mm:model/x", number, f"sha256:{number:064x}")


@given(st.lists(st.integers(0, BUCKETS), min_size=1, max_size=8).map(sorted), st.integers(0, BUCKETS - 1))
@settings(max_examples=100, deadline=None)
def test_a_ramp_that_grows_never_sends_anybody_back(weights: list[int], bucket: int) -> None:
    group, seen = Group("g", "default", 1, version(1)), False
    for weight in weights:
        group = weigh(group, [(version(2), weight)], expected_revision=group.revision)
        is_challengers = group.arm_of_bucket[bucket] == 1
        assert is_challengers or not seen
        seen = is_challengers
        assert sum(group.arm_of_bucket) == weight


def test_shadows_see_their_share_and_never_themselves() -> None:
    group = mirror(Group("g", "default", 1, version(1)), [Shadow(version(2), 2_500)], expected_revision=1)
    seen = sum(shadows_of(group, version(1), f"request {number}") == (version(2),) for number in range(4_000))
    assert 850 < seen < 1_150
    assert all(shadows_of(group, version(2), f"request {number}") == () for number in range(100))
    assert promote(group, version(2), expected_revision=2).shadows == ()
    assert bucket_of("g\x1fshadow", "a") != bucket_of("g", "a")
    for bad in ([Shadow(version(1), 1)], [Shadow(version(2), 10_001)], [Shadow(version(2), 1)] * 2):
        with pytest.raises(WeightsRefused):
            mirror(group, bad, expected_revision=2)
