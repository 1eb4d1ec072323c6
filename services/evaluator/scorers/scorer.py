"""What a scorer is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.evaluator.domain import AnsweredRows, Finding, Options, ScoredRows, Task

Score = Callable[[ScoredRows, Options], Sequence[Finding]]
AnswerScore = Callable[[AnsweredRows, Options], Sequence[Finding]]


@dataclass(frozen=True, slots=True)
class Scorer:
    """Turns scored rows into measures. `name` is scikit-learn's where it has one; its measures begin with it.

    `score` is pure and deterministic, does not depend on the order of rows, changes no array, and raises
    EvaluationError where the rows define no figure. tests/unit/test_scorers_conformance.py holds every one to that.
    """

    name: str
    tasks: tuple[Task, ...]
    score: Score


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """Turns what a model made of a prompt into measures, under the same promises. `name` is the field's.

    tests/unit/test_answer_scorers.py holds every one to them.
    """

    name: str
    score: AnswerScore
