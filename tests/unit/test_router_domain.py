"""Groups as pure data: names, stickiness, ramps, promotion, rollback."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.domain import (
    BUCKETS,
    Buckets,
    Challenger,
    Change,
    Group,
    Revision,
    UnitRule,
    Version,
    bucket_of,
    choose,
    label_text,
    log_table,
    promote,
    refuse_folding,
    roll_back,
    weigh,
)
from services.router.errors import (
    AlreadyChampion,
    GroupNameFolds,
    GroupNameRefused,
    NothingToRollBackTo,
    RevisionConflict,
    WeightsRefused,
)


def version(number: int) -> Version:
    return Version("mm:model/employment", number, "sha256:" + f"{number:064x}")


FIVE, SIXTEEN, THIRD = version(5), version(16), version(3)


def group(**changes: object) -> Group:
    return replace(Group("live-employment", "default", 1, FIVE), **changes)  # type: ignore[arg-type]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1st",
        "-a",
        "Live",
        "live employment",
        "live_employment",
        'a"; drop table groups; --',
        "a'b",
        "a" * 49,
        "a" * 200,
        "lіve",  # Cyrillic і
        "live\n",
        "live\x00",
        "ｌive",
        "é",
        "a/b",
        "a.b",
    ],
)
def test_a_name_that_is_no_safe_identifier_is_refused_with_a_code_and_a_sentence(name: str) -> None:
    with pytest.raises(GroupNameRefused) as refused:
        log_table(name)
    assert refused.value.code == "group-name-refused"
    assert "begins with a letter" in str(refused.value)
    assert len(str(refused.value)) < 250


def test_the_table_of_a_group_fits_into_63_bytes() -> None:
    assert log_table("live-employment") == "inference_log_live_employment"
    assert len(log_table("a" * 48)) <= 63


@given(st.from_regex(r"[a-z][a-z0-9-]{0,47}", fullmatch=True), st.from_regex(r"[a-z][a-z0-9-]{0,47}", fullmatch=True))
def test_two_names_never_share_a_table(one: str, other: str) -> None:
    assert (log_table(one) == log_table(other)) == (one == other)


@pytest.mark.parametrize("taken", ["live-employment", "live_employment", "Live_Employment"])
def test_a_name_that_folds_to_another_groups_table_is_refused(taken: str) -> None:
    with pytest.raises(GroupNameFolds, match="inference_log_live_employment"):
        refuse_folding("live-employment", ["other", taken])


# ---------------------------------------------------------------- stickiness


def test_a_units_bucket_is_the_same_in_every_process() -> None:
    assert bucket_of("live-employment", "person-1") == 7847
    assert bucket_of("other", "person-1") != 7847


@given(st.text())
def test_any_unit_has_a_bucket(unit: str) -> None:
    assert 0 <= bucket_of("g", unit) < BUCKETS


def test_units_spread_over_the_arms_by_weight() -> None:
    weighted = weigh(group(), [(SIXTEEN, 1_000), (THIRD, 2_500)], expected_revision=1)
    served = [choose(weighted, f"person-{i}") for i in range(40_000)]
    assert served.count(SIXTEEN) / 40_000 == pytest.approx(0.10, abs=0.006)
    assert served.count(THIRD) / 40_000 == pytest.approx(0.25, abs=0.009)
    assert weighted.champion_weight_bp == 6_500


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)), min_size=1, max_size=6))
def test_ramps_move_no_more_buckets_than_they_must_and_a_growing_arm_keeps_all_it_had(
    steps: list[tuple[int, int]],
) -> None:
    now = group()
    for step, (a, b) in enumerate(steps, start=1):
        after = weigh(now, [(SIXTEEN, a), (THIRD, b)], expected_revision=step)
        assert [c.weight_bp for c in after.challengers] == [a, b]
        for before_c, after_c in zip(now.challengers, after.challengers, strict=False):
            had, has = set(before_c.buckets), set(after_c.buckets)
            assert had <= has or has <= had
        now = after


def test_nobody_who_saw_the_challenger_flips_back_when_it_is_ramped_up() -> None:
    ten = weigh(group(), [(SIXTEEN, 1_000)], expected_revision=1)
    half = weigh(ten, [(SIXTEEN, 5_000)], expected_revision=2)
    people = [f"person-{i}" for i in range(5_000)]
    saw = [p for p in people if choose(ten, p) == SIXTEEN]
    assert saw and all(choose(half, p) == SIXTEEN for p in saw)


@pytest.mark.parametrize(
    "weights",
    [
        [(SIXTEEN, -1)],
        [(SIXTEEN, 10_001)],
        [(SIXTEEN, 6_000), (THIRD, 4_001)],
        [(SIXTEEN, 100), (SIXTEEN, 200)],
        [(FIVE, 100)],
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: list[tuple[Version, int]]) -> None:
    with pytest.raises(WeightsRefused):
        weigh(group(), weights, expected_revision=1)


def test_overlapping_buckets_are_refused() -> None:
    with pytest.raises(WeightsRefused, match="overlap"):
        group(challengers=(Challenger(SIXTEEN, Buckets(((0, 10),))), Challenger(THIRD, Buckets(((9, 20),)))))


def test_the_unit_is_the_header_then_the_bodys_id_then_the_request() -> None:
    assert UnitRule().unit_of("person-1", "body", "request") == "person-1"
    assert UnitRule().unit_of(None, "body", "request") == "body"
    assert UnitRule().unit_of("", "", "request") == "request"
    assert UnitRule(use_body_id=False).unit_of(None, "body", "request") == "request"


# ---------------------------------------------------------------- promotion and rollback


def test_promotion_sends_everything_to_the_challenger() -> None:
    weighted = weigh(group(), [(SIXTEEN, 5_000)], expected_revision=1)
    promoted = promote(weighted, SIXTEEN, expected_revision=2)
    assert promoted.revision == 3
    assert promoted.versions == (SIXTEEN,)
    assert {choose(promoted, f"person-{i}") for i in range(1_000)} == {SIXTEEN}


def test_another_challenger_keeps_its_units_through_a_promotion() -> None:
    weighted = weigh(group(), [(SIXTEEN, 5_000), (THIRD, 1_000)], expected_revision=1)
    promoted = promote(weighted, SIXTEEN, expected_revision=2)
    assert promoted.challengers == (weighted.challengers[1],)


def test_the_champion_cannot_be_promoted() -> None:
    with pytest.raises(AlreadyChampion):
        promote(group(), FIVE, expected_revision=1)


def test_a_decision_on_an_old_revision_is_refused_and_names_the_present_one() -> None:
    for decide in (
        lambda: promote(group(revision=7), SIXTEEN, expected_revision=6),
        lambda: weigh(group(revision=7), [], expected_revision=6),
        lambda: roll_back(group(revision=7), [], expected_revision=6),
    ):
        with pytest.raises(RevisionConflict) as conflict:
            decide()
        assert conflict.value.extra == {"current": 7}


def test_rollbacks_go_back_one_promotion_each_and_never_forth() -> None:
    created = group()
    history = [Revision(Change.CREATED, created)]
    now = created
    for target in (SIXTEEN, THIRD):
        now = promote(now, target, expected_revision=now.revision)
        history.append(Revision(Change.PROMOTED, now))
    for expected in (SIXTEEN, FIVE):
        now = roll_back(now, history, expected_revision=now.revision)
        history.append(Revision(Change.ROLLED_BACK, now))
        assert now.versions == (expected,)
    with pytest.raises(NothingToRollBackTo):
        roll_back(now, history, expected_revision=now.revision)


def test_one_spelling_for_labels() -> None:
    assert [label_text(v) for v in (True, 1, 1.0, "1", False, 0.5, "employed")] == [
        "1",
        "1",
        "1",
        "1",
        "0",
        "0.5",
        "employed",
    ]
