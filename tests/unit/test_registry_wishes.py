"""How well an existing version would do instead of something new: every check and the order of candidates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.registry.reuse.wishes import Candidate, Evidence, Licence, Wish, judged, ranked

OPEN = Licence(declared="MIT", effective="MIT", commercial="allowed", alternatives=(("MIT",),))


def evidence(**more: Any) -> Evidence:
    fields: dict[str, Any] = {
        "urn": "mm:model/a", "version": 1, "title": "a", "task": "classification", "tags": {}, "stage": "production",
        "registered_at": datetime(2026, 1, 1, tzinfo=UTC), "licence": OPEN, **more,
    }  # fmt: skip
    return Evidence(**fields)


def wish(**constraints: Any) -> Wish:
    return Wish.model_validate({"team": "t", "purpose": "p", "task": "classification", "constraints": constraints})


def verdict(asked: Wish, found: Evidence, what: str) -> str:
    (check,) = [check for check in judged(asked, found, 1.0, ()).checks if check.what == what]
    return check.verdict


def measured(low: float, high: float) -> dict[str, Any]:
    return {"measures": {"auc": {"value": (low + high) / 2, "low": low, "high": high}}}


@pytest.mark.parametrize(
    ("bound", "low", "high", "expected"),
    [
        ({"at_least": 0.8}, 0.81, 0.9, "fits"),
        ({"at_least": 0.8}, 0.80, 0.9, "fits"),
        ({"at_least": 0.8}, 0.79, 0.9, "unknown"),
        ({"at_least": 0.8}, 0.70, 0.79, "fails"),
        ({"at_most": 0.8}, 0.70, 0.79, "fits"),
        ({"at_most": 0.8}, 0.79, 0.9, "unknown"),
        ({"at_most": 0.8}, 0.81, 0.9, "fails"),
    ],
)
def test_a_measure_is_judged_on_its_whole_interval(
    bound: dict[str, float], low: float, high: float, expected: str
) -> None:
    asked = wish(measures=[{"name": "auc", **bound}])
    assert verdict(asked, evidence(evaluation=measured(low, high)), "auc") == expected


def test_no_evidence_is_said_as_such() -> None:
    candidate = judged(wish(measures=[{"name": "auc", "at_least": 0.5}]), evidence(), 1.0, ())
    assert candidate.excluded_by == ()
    assert "no evidence" in candidate.checks[-1].reason


@pytest.mark.parametrize(
    ("most", "found", "expected"),
    [("medium", "low", "fits"), ("medium", "medium", "fits"), ("medium", "high", "fails"), ("low", None, "unknown")],
)
def test_a_class_is_at_most_what_was_asked_for(most: str, found: str | None, expected: str) -> None:
    assert verdict(wish(max_cost=most), evidence(cost=found), "cost") == expected


def test_a_licence_fits_by_any_of_its_alternatives() -> None:
    either = Licence(
        declared="MIT OR GPL-3.0-only", effective="MIT OR GPL-3.0-only", commercial="allowed",
        alternatives=(("MIT",), ("GPL-3.0-only",)),
    )  # fmt: skip
    assert verdict(wish(licences=["mit"]), evidence(licence=either), "licence") == "fits"
    assert verdict(wish(licences=["Apache-2.0"]), evidence(licence=either), "licence") == "fails"
    unknown = Licence(declared=None, effective=None, commercial="unknown", gaps=("mm:model/a@1: none declared",))
    assert verdict(wish(licences=["MIT"]), evidence(licence=unknown), "licence") == "unknown"
    torn = OPEN.model_copy(update={"conflicts": ("its base forbids commerce",)})
    assert verdict(wish(commercial_use=True), evidence(licence=torn), "licence conflicts") == "fails"


def test_languages_are_read_from_the_tag() -> None:
    asked = wish(languages=["de-CH", "en"])
    assert verdict(asked, evidence(tags={"language": "en, DE"}), "languages") == "fits"
    assert verdict(asked, evidence(tags={"language": "de"}), "languages") == "fails"
    assert verdict(asked, evidence(), "languages") == "unknown"


def test_what_nothing_speaks_against_comes_first() -> None:
    def candidate(urn: str, relevance: float, **more: Any) -> Candidate:
        return judged(wish(), evidence(urn=urn, **more), relevance, ())

    found = ranked(
        [candidate("mm:model/a", 1.0, stage="retired"), candidate("mm:model/b", 0.2), candidate("mm:model/c", 0.9)]
    )
    assert [one.urn for one in found] == ["mm:model/c", "mm:model/b", "mm:model/a"]
    assert found[-1].excluded_by == ("it is retired",)


def test_a_score_is_the_sum_of_its_parts() -> None:
    found = judged(wish(), evidence(evaluation=measured(0.8, 0.9), gate="pass"), 0.5, ("word=credit",))
    assert found.score == pytest.approx(0.40 * 0.5 + 0.20 + 0.10 * 0.5 + 0.15 + 0.0 + 0.05)
