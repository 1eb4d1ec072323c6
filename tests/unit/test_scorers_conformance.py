"""Every scorer in the table keeps the promises of `Scorer`; a new one is held to them without a line here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import numpy as np
import pytest

from services.evaluator.domain import Finding, Measure, Options, ScoredRows, Task
from services.evaluator.errors import EvaluationError
from services.evaluator.scorers import SCORERS, Scorer
from services.evaluator.scorers.testing import (
    classified,
    regressed,
    reordered,
    some_binary,
    some_multiclass,
    some_regression,
)
from services.evaluator.templates import TEMPLATES
from shared.events.base import Interval
from shared.ids import canonical

POPULATIONS: dict[Task, tuple[Callable[[], ScoredRows], ...]] = {
    "classification": (some_binary, some_multiclass),
    "regression": (some_regression,),
}
CASES = [
    pytest.param(scorer, make, id=f"{scorer.name}-{make.__name__}")
    for scorer in SCORERS.values()
    for task in scorer.tasks
    for make in POPULATIONS[task]
]
EXTREMES = {
    "wholly apart": lambda: classified(
        [0] * 50 + [1] * 50, [0.0] * 50 + [1.0] * 50, sensitive={"SEX": ["1", "2"] * 50}
    ),
    "wholly wrong": lambda: classified(
        [0] * 50 + [1] * 50, [1.0] * 50 + [0.0] * 50, sensitive={"SEX": ["1", "2"] * 50}
    ),
    "all scores equal": lambda: classified([0, 1] * 50, [0.5] * 100, sensitive={"SEX": ["1", "1", "2", "2"] * 25}),
    "one row of a class": lambda: classified([1] + [0] * 99, np.linspace(0, 1, 100)),
    "one row of each class": lambda: classified([0, 1], [0.2, 0.7]),
    "a class that does not occur": lambda: classified([0, 1] * 50, [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]] * 50),
    "exact predictions": lambda: regressed(np.arange(50), np.arange(50)),
    "one prediction for all": lambda: regressed(np.arange(50), np.zeros(50)),
    "huge targets": lambda: regressed(np.arange(50) * 1e150, np.arange(50)[::-1] * 1e150),
}


@pytest.mark.parametrize(("scorer", "make"), CASES)
def test_figures_lie_in_their_intervals_and_rest_on_rows(scorer: Scorer, make: Callable[[], ScoredRows]) -> None:
    rows = make()
    findings = scorer.score(rows, Options())
    assert findings
    for finding in findings:
        assert finding.name == scorer.name or finding.name.startswith(scorer.name + ".")
        if isinstance(finding, Measure):
            assert finding.low <= finding.value <= finding.high
            assert 0 < finding.n <= max(rows.rows, int(rows.timings.batch_rows.sum()))
            assert finding.method
    assert len({finding.name for finding in findings}) == len(findings)


@pytest.mark.parametrize(("scorer", "make"), CASES)
def test_the_order_of_rows_does_not_matter(scorer: Scorer, make: Callable[[], ScoredRows]) -> None:
    rows = make()
    shuffled = reordered(rows, np.random.default_rng(9).permutation(rows.n))
    for before, after in zip(scorer.score(rows, Options()), scorer.score(shuffled, Options()), strict=True):
        assert figures(after) == pytest.approx(figures(before), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("scorer", "make"), CASES)
def test_the_same_rows_give_the_same_bytes_and_stay_as_they_are(scorer: Scorer, make: Callable[[], ScoredRows]) -> None:
    rows = make()
    for array in (rows.truth, rows.outputs, rows.timings.single_ms, rows.timings.batch_ms, *rows.sensitive.values()):
        array.setflags(write=False)
    assert as_json(scorer.score(rows, Options())) == as_json(scorer.score(make(), Options()))


@pytest.mark.parametrize(("scorer", "make"), CASES)
def test_a_higher_level_gives_wider_intervals(scorer: Scorer, make: Callable[[], ScoredRows]) -> None:
    narrow, wide = (scorer.score(make(), Options(level=level)) for level in (0.80, 0.95))
    for one, other in zip(narrow, wide, strict=True):
        assert isinstance(one, Measure)
        assert isinstance(other, Measure)
        assert (one.level, other.level) == (0.80, 0.95)
        assert other.low <= one.low
        assert one.high <= other.high


@pytest.mark.parametrize(("scorer", "make"), CASES)
def test_measures_are_what_the_event_carries(scorer: Scorer, make: Callable[[], ScoredRows]) -> None:
    for measure in scorer.score(make(), Options()):
        assert isinstance(measure, Measure)
        Interval(**{name: getattr(measure, name) for name in Interval.model_fields})


@pytest.mark.parametrize(
    ("scorer", "given"),
    [
        pytest.param(scorer, make(), id=f"{scorer.name}-{name}")
        for name, make in EXTREMES.items()
        for scorer in SCORERS.values()
        if make().task in scorer.tasks
    ],
)
def test_extremes_give_finite_figures_or_an_error_with_a_code(
    scorer: Scorer, given: ScoredRows, recwarn: pytest.WarningsRecorder
) -> None:
    try:
        findings = scorer.score(given, Options())
    except EvaluationError as error:
        assert error.code != "internal"
        assert ";" in str(error), "says how to fix it"
        return
    for finding in findings:
        if isinstance(finding, Measure):
            assert finding.low <= finding.value <= finding.high
    assert not [str(warning.message) for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda scorer: scorer.name)
def test_says_what_it_measures_and_where_the_formula_comes_from(scorer: Scorer) -> None:
    module = inspect.getmodule(scorer.score)
    assert module is not None
    assert (module.__doc__ or "").startswith(scorer.name.removesuffix("_ms"))
    source = inspect.getdoc(scorer.score) or ""
    assert re.search(r"\d{4}|central limit theorem|exact|Student|A count", source), "name the source of the formula"


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda scorer: scorer.name)
def test_a_template_uses_it_for_its_task(scorer: Scorer) -> None:
    used = [template for template in TEMPLATES.values() if scorer.name in template.scorers]
    assert {template.task for template in used} == set(scorer.tasks)


def test_templates_name_scorers_that_exist() -> None:
    assert {name for template in TEMPLATES.values() for name in template.scorers} == set(SCORERS)


def figures(finding: Finding) -> list[float]:
    return [finding.value, finding.low, finding.high, finding.n] if isinstance(finding, Measure) else [finding.n]


def as_json(findings: object) -> bytes:
    assert isinstance(findings, (list, tuple))
    return canonical([{name: getattr(finding, name) for name in finding.__slots__} for finding in findings])
