"""The breaker, the retry budget and the latencies, by example and by whatever comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.gateway.pursuit.breaker import REFUSED, Breaker, State
from services.router.gateway.pursuit.budget import Budget
from services.router.gateway.pursuit.latency import KEPT, Latencies
from services.router.group_settings.routing import Breaker as Settings
from services.router.group_settings.routing import Retries

THREE = Settings(consecutive_failures=3, failure_share=None, open_s=10)


def fail(breaker: Breaker, now: float) -> None:
    breaker.failed(breaker.enter(now), now)


def test_it_opens_after_failures_in_a_row_and_a_success_begins_anew() -> None:
    breaker = Breaker(THREE)
    for now in (1, 2):
        fail(breaker, now)
    breaker.succeeded(breaker.enter(3), 3)
    for now in (4, 5):
        fail(breaker, now)
    assert breaker.permits(5)
    fail(breaker, 6)
    assert (breaker.state, breaker.enter(7), breaker.retry_after_s(7)) == (State.OPEN, REFUSED, 9)


def test_it_opens_by_share_of_a_window_and_not_for_few_requests() -> None:
    breaker = Breaker(Settings(consecutive_failures=100, failure_share=0.5, least_requests=10, window_s=10, open_s=1))
    for number in range(9):
        (breaker.failed if number % 2 else breaker.succeeded)(breaker.enter(number), number)
    assert breaker.permits(8)
    fail(breaker, 9)
    assert not breaker.permits(9)
    aged = Breaker(Settings(consecutive_failures=100, failure_share=0.5, least_requests=4, window_s=10, open_s=1))
    for now in (0, 1, 2):
        fail(aged, now)
    fail(aged, 30)
    assert aged.state is State.CLOSED, "failures of before the window are forgotten"


def test_after_a_while_one_trial_decides() -> None:
    breaker = Breaker(THREE)
    for _ in range(3):
        fail(breaker, 0)
    trial = breaker.enter(10)
    assert (trial != REFUSED, breaker.state, breaker.enter(10), breaker.retry_after_s(10)) == (
        True, State.HALF_OPEN, REFUSED, 1.0,
    )  # fmt: skip
    breaker.failed(trial, 11)
    assert (breaker.state, breaker.permits(20), breaker.permits(21)) == (State.OPEN, False, True)
    breaker.succeeded(breaker.enter(21), 22)
    assert (breaker.state, breaker.opened) == (State.CLOSED, 2)


def test_a_trial_whose_caller_went_away_gives_its_place_back() -> None:
    breaker = Breaker(THREE)
    for _ in range(3):
        fail(breaker, 0)
    breaker.dropped(breaker.enter(10))
    assert breaker.enter(10) != REFUSED


def test_an_answer_to_a_question_of_before_decides_nothing() -> None:
    breaker = Breaker(THREE)
    late = breaker.enter(0)
    for _ in range(3):
        fail(breaker, 0)
    trial = breaker.enter(10)
    breaker.succeeded(late, 10)
    breaker.failed(late, 10)
    breaker.dropped(late)
    assert (breaker.state, breaker.enter(10)) == (State.HALF_OPEN, REFUSED)
    breaker.succeeded(trial, 11)
    assert breaker.state is State.CLOSED


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "drop", "hold"]), st.floats(0, 3)), max_size=200))
def test_whatever_comes_it_lets_somebody_through_again(steps: list[tuple[str, float]]) -> None:
    breaker = Breaker(Settings(consecutive_failures=2, failure_share=0.5, least_requests=5, open_s=5, probes=2))
    now, held = 0.0, []
    for what, passes in steps:
        now += passes
        permit = breaker.enter(now)
        assert (permit == REFUSED) == (not breaker.permits(now) and permit == REFUSED)
        if permit == REFUSED:
            assert breaker.retry_after_s(now) > 0
        elif what == "hold":
            held.append(permit)
        elif what == "drop":
            breaker.dropped(permit)
        else:
            (breaker.succeeded if what == "ok" else breaker.failed)(permit, now)
    for permit in held:  # every attempt ends at some time
        breaker.dropped(permit)
    assert breaker.enter(now + 5.001) != REFUSED


def test_retries_are_a_share_of_requests_and_a_few_in_any_case() -> None:
    budget = Budget(Retries(budget_percent=20, window_s=10, least=2))
    assert [budget.spend(0.1) for _ in range(3)] == [True, True, False]
    for _ in range(100):
        budget.asked(1.0)
    assert sum(budget.spend(1.1) for _ in range(100)) == 18, "20 in all"
    assert budget.refused == 83
    assert budget.spend(30.0), "another window"


@given(
    st.lists(st.tuples(st.floats(0, 0.4), st.integers(0, 5)), min_size=1, max_size=300),
    st.integers(0, 100), st.integers(0, 5),
)  # fmt: skip
def test_an_outage_is_never_multiplied(steps: list[tuple[float, int]], percent: int, least: int) -> None:
    budget = Budget(Retries(budget_percent=percent, window_s=10, least=least))
    now, spent, asked = 0.0, 0, 0
    for passes, wanted in steps:
        now += passes
        budget.asked(now)
        asked += 1
        spent += sum(budget.spend(now) for _ in range(wanted))
    windows = now / 10 + 2
    assert spent <= asked * percent / 100 + least * windows


def test_latencies_are_those_of_late() -> None:
    latencies = Latencies(95)
    for number in range(100):
        latencies.add(number / 100)
    assert latencies.percentile() == 0.94
    for _ in range(KEPT):
        latencies.add(7.0)
    assert (len(latencies), latencies.percentile()) == (KEPT, 7.0)
