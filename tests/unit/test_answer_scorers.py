"""Scorers of prompts: figures that can be checked by hand, intervals that hold their value, no order, no surprise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from services.evaluator.domain import PROMPT_SHARD_ROWS, AnsweredRows, Insufficient, Measure, Options, prompt_plan
from services.evaluator.scorers import ANSWER_SCORERS, AnswerScorer, intervals
from services.evaluator.scorers.words import overlap, same, words
from services.evaluator.templates import PROMPT_TEMPLATES
from shared.events.base import Interval

EVERY = pytest.mark.parametrize("scorer", ANSWER_SCORERS.values(), ids=lambda scorer: scorer.name)


def answered(n: int = 500, seed: int = 1, order: npt.NDArray[np.int64] | None = None) -> AnsweredRows:
    random = np.random.default_rng(seed)
    f1 = np.round(random.choice([0.0, 0.5, 1.0, 2 / 3], n), 6)
    tokens = np.where(random.random(n) < 0.1, np.nan, random.integers(1, 60, n))
    columns = [(f1 == 1).astype(float), f1, random.exponential(300, n), tokens]
    return AnsweredRows(*(column if order is None else column[order] for column in columns), rows=n + 7)


@EVERY
def test_figures_lie_in_their_intervals_and_widen_with_the_level(scorer: AnswerScorer) -> None:
    for narrow, wide in zip(
        scorer.score(answered(), Options(level=0.8)), scorer.score(answered(), Options()), strict=True
    ):
        assert isinstance(narrow, Measure) and isinstance(wide, Measure)
        assert wide.name == scorer.name or wide.name.startswith(scorer.name + ".")
        assert wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high
        assert wide.low < wide.high and 0 < wide.n <= 500
        Interval(**{name: getattr(wide, name) for name in Interval.model_fields})


@EVERY
def test_the_order_of_rows_does_not_matter_and_the_same_rows_say_the_same(scorer: AnswerScorer) -> None:
    shuffled = answered(order=np.random.default_rng(2).permutation(500))
    first = [(one.name, one.value, one.low, one.high) for one in scorer.score(answered(), Options())]  # type: ignore[union-attr]
    again = [(one.name, one.value, one.low, one.high) for one in scorer.score(shuffled, Options())]  # type: ignore[union-attr]
    for (name, *figures), (other, *others) in zip(first, again, strict=True):
        assert name == other and figures == pytest.approx(others, rel=1e-9)


@EVERY
@pytest.mark.parametrize("right", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_rows_and_all_of_them_alike_claim_no_certainty(scorer: AnswerScorer, n: int, right: float) -> None:
    alike = np.full(n, right)
    for finding in scorer.score(AnsweredRows(alike, alike, np.full(n, 5.0), np.full(n, np.nan), n), Options()):
        if isinstance(finding, Insufficient):
            assert finding.n < finding.needed
        elif scorer.name in ("exact_match", "token_f1"):
            assert finding.value == right and finding.high - finding.low > 0.2


def test_templates_name_scorers_that_exist() -> None:
    assert {name for scorers in PROMPT_TEMPLATES.values() for name in scorers} == set(ANSWER_SCORERS)


def test_the_interval_of_a_mean_holds_what_is_true_as_often_as_it_says() -> None:
    """Simulated on scores of 0, 1/2 and 1; on the wide side, so never below its level but for chance (3 sigma)."""
    random, level, runs = np.random.default_rng(3), 0.9, 2000
    drawn = random.choice([0.0, 0.5, 1.0], size=(runs, 60), p=[0.2, 0.3, 0.5])
    held = sum(low <= 0.65 <= high for low, high in (intervals.wilson_of_mean(one, level) for one in drawn))
    assert held / runs > level - 3 * (level * (1 - level) / runs) ** 0.5


# As SQuAD's own evaluation has it


def test_words_are_normalized_as_squad_does_it() -> None:
    assert words("The  Cat, and a dog's AN apple!") == ["cat", "and", "dogs", "apple"]
    assert words("Theatre") == ["theatre"], "an article is a word of its own"
    assert words("Über-Größe") == ["übergröße"]
    assert words("…") == ["…"], "ASCII punctuation alone, as there"


@pytest.mark.parametrize(
    ("answer", "expected", "exact", "f1"),
    [
        ("The Paris.", ("paris",), 1.0, 1.0),
        ("It is Paris", ("Paris",), 0.0, 0.5),  # precision 1/3, recall 1
        ("in the city of Paris France", ("Paris", "city of Paris"), 0.0, 0.75),  # the best of both: 3 of 5, 3 of 3
        ("paris paris", ("Paris",), 0.0, 2 / 3),  # a word counts as often as it is expected
        ("London", ("Paris",), 0.0, 0.0),
        ("", ("Paris",), 0.0, 0.0),
        ("", ("",), 1.0, 1.0),
        ("the", ("a",), 1.0, 1.0),
        ("something", ("",), 0.0, 0.0),
    ],
)
def test_exact_and_f1(answer: str, expected: tuple[str, ...], exact: float, f1: float) -> None:
    assert same(answer, expected) == exact
    assert overlap(answer, expected) == pytest.approx(f1)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 129, 1000])
def test_shards_of_prompts_are_small_and_of_one_size(rows: int) -> None:
    sizes = [shard.stop - shard.start for shard in prompt_plan(rows).shards]
    assert sum(sizes) == rows and all(size <= PROMPT_SHARD_ROWS for size in sizes)
    assert len(sizes) == -(-rows // PROMPT_SHARD_ROWS)
    assert not sizes or rows <= PROMPT_SHARD_ROWS or min(sizes) > PROMPT_SHARD_ROWS // 4
