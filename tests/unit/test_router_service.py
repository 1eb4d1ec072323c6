"""What the router's control plane decides without a database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from services.router import HEARS, SAYS, app, consumers
from services.router.api.groups import expected
from services.router.domain import Buckets, Challenger, Group, Version
from services.router.errors import FeedbackRefused
from services.router.handlers.feedback import word
from services.router.handlers.inferences import explain
from shared.errors import PreconditionFailed, PreconditionRequired

ID = UUID(int=1)
ONE, TWO = (Version("mm:model/employment", number, f"sha256:{number:064x}") for number in (1, 2))
GROUP = Group("g", "default", 7, ONE, (Challenger(TWO, Buckets(((0, 1_000),))),))


@pytest.mark.parametrize(
    ("metric", "value", "number", "label"),
    [
        ("label", True, 1.0, "1"),
        ("label", 1, 1.0, "1"),
        ("label", 1.0, 1.0, "1"),
        ("label", "1", None, "1"),
        ("label", "employed", None, "employed"),
        ("revenue", 12.5, 12.5, None),
        ("complaint", False, 0.0, None),
        ("comment", "late", None, "late"),
    ],
)
def test_a_label_has_one_spelling_and_another_metric_its_number(
    metric: str, value: Any, number: float | None, label: str | None
) -> None:
    said = word(ID, ID, metric, value)
    assert (said.value, said.label) == (number, label)


@pytest.mark.parametrize("value", [None, [], {}, "", "x" * 201, "a\x00", 10**400])
def test_what_is_no_outcome_is_refused(value: Any) -> None:
    with pytest.raises(FeedbackRefused):
        word(ID, ID, "label", value)


def test_the_revision_decided_on_comes_from_the_body_or_from_if_match() -> None:
    assert expected(None, 3) == 3
    assert expected('"12"', None) == 12
    with pytest.raises(PreconditionRequired):
        expected(None, None)
    for header in ("12", 'W/"12"', '"0"', "*", '"x"', '"1", "2"'):
        with pytest.raises(PreconditionFailed):
            expected(header, None)


def test_why_says_whose_bucket_it_was_and_who_stood_in() -> None:
    row = {"unit": "ada", "error_code": "malformed", "shadow_of": None, "tags": None, "attempts": 0}
    assert "bucket 5 of 10000 belonged to the challenger" in explain(GROUP, 5, TWO, TWO, row)
    assert "which had 10 % of them" in explain(GROUP, 5, TWO, TWO, row)
    assert "which had 90 % of them" in explain(GROUP, 5_000, ONE, ONE, row)
    assert f"so the champion {ONE} answered" in explain(GROUP, 5, TWO, ONE, row)
    assert "refused (malformed) before" in explain(GROUP, 5, TWO, None, row)


def test_what_the_package_declares_is_what_the_code_says_and_hears() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            return name

    routes = [route for one in consumers.table(Anything(), Anything()) for route in one.routes]  # type: ignore[arg-type]
    assert sorted(route.event.topic.name for route in routes) == sorted(HEARS)
    assert sorted(event.topic.name for event in app.SAYS) == sorted(SAYS)
