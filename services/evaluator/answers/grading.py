"""One shard of a prompt's evaluation: its golden rows rendered, and what was answered held against what was expected.

A shard's bytes hold figures by row, never an answer or an expected one, unless the golden set is public.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from services.evaluator.answers import golden
from services.evaluator.answers.bounds import TOO_MUCH, bounded
from services.evaluator.answers.golden import Row
from services.evaluator.answers.rendering import Prompt
from services.evaluator.domain import Answer, Question, Shard
from services.evaluator.errors import RenderRefused, RenderTooLarge, ShardsForeign
from services.evaluator.scorers import words
from services.evaluator.templates.assignment import PromptAssignment
from shared.ids import canonical, sha256

ROW_CPU_S = 2.0
"""Processor time to render one row, as the prompts service gives it."""
SHARD_CPU_S = 10.0
MOST_CHARACTERS = 16_000_000
"""Of all prompts of a shard together: they are in memory at once."""
MOST_QUOTED = 20
QUOTED_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Graded:
    """One scored row."""

    row: int
    exact: float
    f1: float
    latency_ms: float
    tokens: int | None


@dataclass(frozen=True, slots=True)
class PromptPartial:
    """What one shard gave. `unanswered`: reason -> rows; `quoted`: a few wrong answers, of public golden sets alone."""

    basis: str
    shard: Shard
    graded: tuple[Graded, ...]
    without_label: int
    unanswered: dict[str, int]
    quoted: tuple[dict[str, Any], ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> PromptPartial:
        """Raises ShardsForeign for bytes that are no partial."""
        try:
            found = orjson.loads(data)
            return cls(
                found["basis"],
                Shard(**found["shard"]),
                tuple(Graded(**one) for one in found["graded"]),
                found["without_label"],
                found["unanswered"],
                tuple(found["quoted"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ShardsForeign("the bytes of a shard are not what a shard writes; run it again") from error

    @property
    def digest(self) -> str:
        return sha256(self.to_bytes())


def questions(assignment: PromptAssignment, prompt: Prompt, rows: Sequence[Row], shard: Shard) -> list[Question]:
    """The labelled rows of a shard, rendered. Raises RenderRefused or RenderTooLarge, naming the row."""
    made: list[Question] = []
    began, characters = time.process_time(), 0
    for number, row in _numbered(rows, shard):
        if not golden.expected(row, assignment.label):
            continue
        left_s = SHARD_CPU_S - (time.process_time() - began)
        if left_s <= 0:
            raise RenderTooLarge(f"row {number}: {TOO_MUCH}")
        try:
            with bounded(min(ROW_CPU_S, left_s)):
                messages = prompt.messages(golden.values(row, assignment.label, prompt.variables))
        except (RenderRefused, RenderTooLarge) as error:
            raise type(error)(f"row {number}: {error.message}") from error
        characters += sum(len(str(message["content"])) for message in messages)
        if characters > MOST_CHARACTERS:
            raise RenderTooLarge(f"the prompts of {len(made) + 1} rows are longer than {MOST_CHARACTERS} characters")
        made.append(Question(number, messages))
    return made


def grade(assignment: PromptAssignment, rows: Sequence[Row], shard: Shard, answers: Sequence[Answer]) -> PromptPartial:
    """The shard's partial result. Raises ShardsForeign where the answers are not those of its labelled rows."""
    numbered = dict(_numbered(rows, shard))
    wanted = {number: found for number, row in numbered.items() if (found := golden.expected(row, assignment.label))}
    if sorted(answer.row for answer in answers) != sorted(wanted):
        raise ShardsForeign(f"the answers are not those of shard {shard.index}'s labelled rows; run it again")
    graded: list[Graded] = []
    unanswered: Counter[str] = Counter()
    quoted: list[dict[str, Any]] = []
    for answer in sorted(answers, key=lambda one: one.row):
        if answer.text is None:
            unanswered[answer.why] += 1
            continue
        expected = wanted[answer.row]
        exact, f1 = words.same(answer.text, expected), words.overlap(answer.text, expected)
        graded.append(Graded(answer.row, exact, f1, round(answer.latency_ms, 3), answer.tokens))
        if not exact and assignment.may_quote and len(quoted) < MOST_QUOTED:
            quoted.append({"row": answer.row, "expected": _cut(expected[0]), "answer": _cut(answer.text)})
    without_label = len(numbered) - len(wanted)
    return PromptPartial(assignment.basis, shard, tuple(graded), without_label, dict(unanswered), tuple(quoted))


def _numbered(rows: Sequence[Row], shard: Shard) -> list[tuple[int, Row]]:
    """The shard's rows with their numbers; the golden set's first row is 1."""
    return list(enumerate(rows[shard.start : shard.stop], shard.start + 1))


def _cut(text: str) -> str:
    return text if len(text) <= QUOTED_CHARACTERS else text[: QUOTED_CHARACTERS - 1] + "…"
