"""Caps without a database: what answers cost, what is reserved for them, and in which windows."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.router.gateway.caps.allowances import Allowance, Allowances, Counter
from services.router.gateway.caps.compiled import AssetClass, CompiledCaps, output_limit
from services.router.gateway.caps.errors import ClassRefused
from services.router.gateway.caps.prices import Rates, cost_of, usd
from services.router.gateway.caps.windows import window_of
from services.router.gateway.rows import Answer
from services.router.group_settings.caps import Caps, Price
from shared.identity import Principal

ADA = Principal("user:ada", "default", frozenset({"caller"}), "key-1")


def test_a_price_is_exact_and_an_unknown_one_is_never_zero() -> None:
    rates = Rates.of(Price(input_per_million=Decimal("0.0375"), output_per_million=Decimal("0.15")))
    assert usd(rates.cost(1000, 7, None) or 0) == Decimal("0.00003855")
    answer = Answer(200, input_tokens=1000, output_tokens=None)
    assert cost_of(rates, answer, 5.0) is None
    assert cost_of(Rates.of(Price(per_request=Decimal("0.01"))), answer, 5.0) == Decimal("0.01")
    assert cost_of(Rates.of(Price(per_second=Decimal(2))), answer, 500.0) == Decimal(1)
    assert cost_of(Rates.of(Price(per_request=Decimal("0.01"))), Answer(503), 5.0) is None
    with pytest.raises(ValidationError, match="at least one of its parts"):
        Price()


@given(
    st.builds(Rates, *[st.integers(0, 10**14)] * 4), st.integers(0, 10**6), st.integers(0, 10**5), st.floats(0, 300),
    st.data(),
)  # fmt: skip
def test_what_is_reserved_is_never_less_than_what_it_costs(
    rates: Rates, body_bytes: int, limit: int, timeout_s: float, data: st.DataObject
) -> None:
    cost = rates.cost(
        data.draw(st.integers(0, body_bytes)), data.draw(st.integers(0, limit)), data.draw(st.floats(0, timeout_s))
    )
    assert cost is not None and 0 <= cost <= rates.at_most(body_bytes, limit, timeout_s)


def test_windows_are_of_utc() -> None:
    def moment(*at: int) -> int:
        return int(datetime(*at, tzinfo=UTC).timestamp())  # type: ignore[misc]

    now = moment(2026, 12, 31, 23, 59)
    assert window_of(now, "month") == (moment(2026, 12, 1), moment(2027, 1, 1))
    assert window_of(now, "day") == (moment(2026, 12, 31), moment(2027, 1, 1))
    assert window_of(now + 0.5, 60) == (now, now + 60)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30), st.integers(0, 500))
def test_no_order_of_reserving_and_settling_makes_or_loses_anything(uses: list[tuple[int, int]], leased: int) -> None:
    one = Allowance(Counter("default", "group/g", "tokens", 0, 60), 1000, "g")
    one.granted(leased)
    spent, open_ones = 0, []
    for need, took in uses:
        if one.reserve(need, 0.0):
            open_ones.append((need, min(need, took)))
        if len(open_ones) > 3:
            need, took = open_ones.pop(0)
            one.settle(need, took)
            spent += took
        assert one.free >= 0
        assert one.free + one.reserved + spent == leased


def test_what_is_idle_or_over_is_given_back_and_forgotten() -> None:
    found = Allowances()
    one = found.of("default", "group/g", "usd", 60, 1000, "g", 30.0)
    one.granted(100)
    assert one.reserve(40, now=1.0)
    assert found.to_return(31.0, now=3.0, idle_s=5.0) == []
    assert found.to_return(31.0, now=7.0, idle_s=5.0) == [(one, 60)]
    assert one.free == 0
    one.settle(40, 50)  # an answer that took more than was reserved
    assert found.to_return(61.0, now=8.0, idle_s=5.0) == [(one, -10)]
    assert found.of("default", "group/g", "usd", 60, 1000, "g", 30.0) is not one


def test_the_answer_s_length_is_bounded_by_what_the_request_says() -> None:
    assert output_limit({"messages": [], "max_tokens": 10}, 4096) == 10
    assert output_limit({"messages": [], "max_completion_tokens": 10, "n": 3}, 4096) == 30
    assert output_limit({"input": "x", "max_output_tokens": 7}, 4096) == 7
    assert output_limit({"messages": []}, 4096) == 4096
    assert output_limit({"input": "x", "encoding_format": "float"}, 4096) == 0
    assert output_limit(None, 4096) == 4096


def compiled(caps: dict[str, object], *classes: AssetClass) -> CompiledCaps:
    found = CompiledCaps.of(
        "g", Caps.model_validate(caps), ["mm:model/a", "mm:model/b"], [None, None], {one.urn: one for one in classes}
    )
    assert found is not None
    return found


def test_who_may_call_is_decided_by_every_arm_s_class() -> None:
    low, high = AssetClass("mm:model/a", "minimal", "low"), AssetClass("mm:model/b", "high", "low")
    rule = {"access": [{"risk": ["high"], "roles": ["analyst"], "callers": ["key-2"]}]}
    compiled(rule, low).require_access(ADA)
    with pytest.raises(ClassRefused, match="mm:model/b is of risk class high"):
        compiled(rule, low, high).require_access(ADA)
    compiled(rule, low, high).require_access(Principal("user:ada", "default", frozenset({"analyst"})))
    compiled(rule, low, high).require_access(Principal("user:bo", "default", frozenset(), "key-2"))
    with pytest.raises(ClassRefused, match="prohibited"):
        compiled({}, AssetClass("mm:model/a", "prohibited", "low")).require_access(ADA)
    with pytest.raises(ClassRefused, match="not classified"):
        compiled({"unclassified": "refuse"}).require_access(ADA)


def test_an_asset_s_monthly_cap_is_a_budget_of_its_own() -> None:
    found = compiled({"budgets": [{"scope": "class", "usd": "5", "period": "day"}]},
                     AssetClass("mm:model/a", "minimal", "high", Decimal(250)))  # fmt: skip
    assert [(cap.name, cap.most, cap.length) for cap in found.caps] == [
        ("class/high", 5 * 10**12, "day"),
        ("asset/mm:model/a", 250 * 10**12, "month"),
    ]
    assert CompiledCaps.of("g", Caps(), ["mm:model/a"], [None], {}) is None
