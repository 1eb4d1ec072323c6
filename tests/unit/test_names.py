"""Titles that people give, as the names that URNs are made of."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events.names import addressable, name_of

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?")


@given(st.text(min_size=1, max_size=500))
def test_every_title_has_a_name_and_keeps_it(title: str) -> None:
    assert NAME.fullmatch(name_of(title))
    assert name_of(title) == name_of(title)


@given(st.lists(st.text(min_size=1, max_size=40), unique=True, min_size=2, max_size=20))
def test_no_two_titles_share_a_name(titles: list[str]) -> None:
    assert len({name_of(title) for title in titles}) == len(titles)


@pytest.mark.parametrize("name", ["credit-pd", "a", "v2.1_final", "0"])
def test_what_is_a_name_stays_what_it_is(name: str) -> None:
    assert name_of(name) == name


def test_titles_stay_readable() -> None:
    assert name_of("Credit PD (v2)").startswith("credit-pd-v2-x")
    assert name_of("team/summarise").startswith("team-summarise-x")
    assert re.fullmatch(r"x[0-9a-f]{12}", name_of("🦊"))


def test_case_alone_makes_another_name() -> None:
    assert len({name_of("Fraud"), name_of("fraud"), name_of("FRAUD")}) == 3


def test_a_made_name_written_out_is_another_title() -> None:
    assert name_of(name_of("Fraud")) != name_of("Fraud")


@pytest.mark.parametrize("title", [".", ".."])
def test_what_a_url_takes_for_a_folder_is_no_title(title: str) -> None:
    with pytest.raises(ValueError, match="in a URL that means a folder"):
        addressable(title)
    for kept in (f"a/{title}", f"{title}a", "...", "%2e"):
        assert addressable(kept) == kept
