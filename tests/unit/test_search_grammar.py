"""What filters are read as, where they are wrong, patterns, and questions in plain words."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.search.asking import And, Compare, Has, Is, Like, Not, Or, Pattern, Question, literal, prefix
from services.registry.search.bitmaps import bitmap_of_numbers, pack_numbers, split, unpack_numbers, with_changes
from services.registry.search.errors import FilterRefused
from services.registry.search.grammar import parse
from services.registry.search.rules import Rules
from services.registry.search.snippets import snippet

TEAM = 'tag:"team"'


def bare(question: Question) -> Question:
    """What is asked, without where it says so."""
    if isinstance(question, Not):
        return Not(bare(question.part))
    if isinstance(question, And | Or):
        return type(question)(tuple(bare(part) for part in question.parts))
    return replace(question, text="")


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("kind='model'", Is("kind", ("model",))),
        ('tags."team" = "x"', Is(TEAM, ("x",))),
        ("tags.`te am` == 'x''y'", Is('tag:"te am"', ("x'y",))),
        ("attributes.name like 'a%'", Like("name", "a%")),
        ("name ILIKE 'a'", Like("name", "a", True)),
        ("name LIKE 'a'", Is("name", ("a",))),
        ("NOT kind = 'model' or stage = 'None'", Or((Not(Is("kind", ("model",))), Is("stage", ("development",))))),
        ("a.b = 'x'", None),
        ("metrics.auc>=-.5e1", Compare('metric:"auc"', ">=", -5.0)),
        ("measures.`roc auc` <> 1", Compare('measure:"roc auc"', "!=", 1.0)),
        ("version_number = '3'", Compare("version", "=", 3.0)),
        ("creation_timestamp < 1700000000000", Compare("created", "<", 1.7e12)),
        ("updated > '2026-11-20T10:00:00+01:00'", Compare("updated", ">", 1795165200000.0)),
        ("tags.team != 'x'", And((Has(TEAM), Not(Is(TEAM, ("x",)))))),
        ("tag.`mlflow.prompt.is_prompt` != 'true'", Not(Is('tag:"mlflow.prompt.is_prompt"', ("true",)))),
        ("alias is not null AND metrics.auc IS NULL", And((Has("alias"), Not(Has('metric:"auc"', True))))),
        ("license in ('MIT', 'MIT', \"x\")", Is("licence", ("MIT", "x"))),
    ],
)  # fmt: skip
def test_a_filter_is_read(text: str, asked: Question | None) -> None:
    if asked is None:
        with pytest.raises(FilterRefused):
            parse(text)
    else:
        assert bare(parse(text)) == asked


@pytest.mark.parametrize(
    ("text", "column"),
    [("kind == ", 8), ("kind 'x'", 6), ("(kind='model'", 14), ("kind='model' x", 14), ("a='b'", 1),
     ("version = 'x'", 11),
     ("name LIKE 3", 11), ("kind='spell'", 6), ("version LIKE 'x'", 9), ("tags = 'x'", 1), ("kind='model\x00'", 12)],
)  # fmt: skip
def test_an_error_points_at_the_column(text: str, column: int) -> None:
    with pytest.raises(FilterRefused) as raised:
        parse(text)
    assert raised.value.extra == {"column": column}
    *_, shown, caret = raised.value.message.split("\n")
    assert caret.index("^") == column - 1 and shown.startswith(text[: column - 1])


patterns = st.text(st.sampled_from("ab%_\n"), max_size=8)


@given(patterns, st.text(st.sampled_from("abAB\n"), max_size=8), st.booleans())
def test_a_pattern_fits_what_like_fits(pattern: str, text: str, any_case: bool) -> None:
    expression = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)
    wanted = re.fullmatch(expression, text, re.DOTALL | (re.IGNORECASE if any_case else 0)) is not None
    assert Pattern(pattern, any_case=any_case).fits(text) == wanted
    if wanted and not any_case:
        assert text.startswith(prefix(pattern)) and literal(pattern) in (None, text)


@given(st.sets(st.integers(0, 300_000)), st.sets(st.integers(0, 65_535)))
def test_bitmaps_and_numbers_are_what_went_in(numbers: set[int], places: set[int]) -> None:
    import numpy as np

    dense = np.union1d(np.array(sorted(numbers), np.uint32), np.arange(70_000, 76_000, dtype=np.uint32))
    assert list(bitmap_of_numbers(dense)) == dense.tolist()
    assert sum(len(part) for _, part in split(dense)) == len(dense)
    kept = unpack_numbers(pack_numbers(*with_changes(*unpack_numbers(b""), dict.fromkeys(sorted(places), 1.5))))
    assert kept[0].tolist() == sorted(places) and set(kept[1].tolist()) <= {1.5}
    gone = with_changes(*kept, dict.fromkeys(places, None))
    assert len(gone[0]) == 0


RULES = Rules(
    ["classification", "question_answering"], ["Apache-2.0", "MIT"], ["team"], ["auc", "log_loss"],
    ["accuracy_score"], datetime(2026, 11, 29, tzinfo=UTC),
)  # fmt: skip


@pytest.mark.parametrize(
    ("question", "filter", "words", "order"),
    [
        ("models for credit scoring in production with auc over 0.9, not retired, newest first",
         "kind = 'model' AND metrics.auc > 0.9 AND stage = 'production' AND stage != 'retired'", "credit scoring",
         "created DESC"),
        ("Which prompts did team labour publish in the last 30 days?",
         "kind = 'prompt' AND created >= '2026-10-30T00:00:00+00:00' AND tags.team = 'labour'", "", ""),
        ("high-risk models without approval that passed the gate",
         "kind = 'model' AND risk = 'high' AND approval IS NULL AND gate = 'pass'", "", ""),
        ("best accuracy for churn under Apache-2.0", "licence = 'Apache-2.0'", "churn", "measures.accuracy_score DESC"),
        ("lowest loss models", "kind = 'model'", "", "metrics.log_loss ASC"),
        ("question answering with accuracy of at least 90%",
         "measures.accuracy_score >= 0.9 AND task = 'question_answering'", "", ""),
        ("models or prompts named it's'; DROP", "kind IN ('model', 'prompt') AND name ILIKE '%it%'", "s DROP", ""),
        ("", "", "", ""),
        ("() AND OR ' \" ` %", "", "", ""),
    ],
)  # fmt: skip
def test_a_question_is_read_by_rules(question: str, filter: str, words: str, order: str) -> None:
    read = RULES.read(question)
    parse(" AND ".join(read.filters))
    assert (" AND ".join(read.filters), read.words, read.order) == (filter, words, order)


@given(st.text(max_size=80))
def test_no_question_becomes_a_filter_that_cannot_be_read(question: str) -> None:
    parse(" AND ".join(RULES.read(question.replace("\x00", "")).filters))


def test_a_snippet_shows_the_words() -> None:
    text = "It was a long day. " * 10 + "The loans of households are paid."
    found = snippet(text, ["loan", "household"])
    assert found is not None and found.startswith("…") and "**loans** of **households**" in found
    assert snippet(text, ["nothing"]) is None and snippet("", ["x"]) is None and snippet(text, []) is None
