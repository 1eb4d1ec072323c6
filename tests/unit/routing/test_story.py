"""What a row's tags say is read back by `why` and by the comparison, which is an experiment by weight alone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import uuid_utils

from services.router.domain import Group, Version, weigh
from services.router.gateway import rows
from services.router.gateway.pursuit.story import OK, Attempted, Story
from services.router.gateway.rules import Matched
from services.router.gateway.shipper.batch import GroupRows
from services.router.handlers.explaining import Told, explain, ranges_of

ONE, TWO = (Version("mm:model/card", number, f"sha256:{number:064x}") for number in (1, 2))
GROUP = weigh(Group("cards", "default", 1, ONE), [(TWO, 2500)], expected_revision=1)


def route_of(tags: dict[str, Any]) -> str:
    """As the shipper counts a row with these tags."""
    taken = GroupRows("default", "cards")
    row = (
        rows.head(uuid_utils.uuid7().bytes, 1.8e9, 200, 1.0, 2)
        + rows.text("default")
        + rows.served_by(ONE.urn, 1, ONE.digest, "champion")
        + rows.rest(
            "unit", "0" * 32, rows.asked_by("user:ada", "chat"), rows.Answer(200), error_code=None, upstream_ms=1.0,
            ttft_ms=None, attempts=1, client_request_id="mine", features=None, input=b"{}",
            tags=orjson.dumps(tags) if tags else None,
        )
    )  # fmt: skip
    taken.add(row)
    return taken.outcomes[0].route


MATCHED = Matched("beta", 1, str(TWO))


@pytest.mark.parametrize(
    ("story", "route"),
    [
        (Story(attempts=[Attempted(str(ONE), outcome=OK)]), "weight"),
        (Story(attempts=[Attempted(str(ONE), outcome="upstream-503"), Attempted(str(ONE), outcome=OK)]), "weight"),
        (Story(matched=MATCHED), "rule"),
        (Story(matched=MATCHED, gave_way="it is gone"), "weight"),
        (Story(matched=MATCHED, failed_over=True), "failover"),
        (Story(cache="hit"), "cache"),
    ],
)
def test_only_what_the_weights_drew_is_an_experiment(story: Story, route: str) -> None:
    assert route_of(story.tags()) == route
    assert route_of({**story.tags(), "client": {"cache": "hit", "route": "mine"}}) == route, "nobody says it themselves"


def test_the_ordinary_is_not_told() -> None:
    assert Story(attempts=[Attempted(str(ONE), outcome=OK, ms=3.0)]).tags() == {}
    told = Story(attempts=[Attempted(str(ONE), outcome=OK, ms=3.0, was_trial=True)]).tags()
    assert told == {"attempts": [{"to": str(ONE), "outcome": "ok", "ms": 3.0, "breaker": "half-open"}]}


def a_row(story: Story, served: Version | None = ONE, **more: Any) -> dict[str, Any]:
    row = {
        "tags": story.tags() or None, "attempts": len(story.attempts), "error_code": None, "upstream_ms": 3.0,
        "unit": "ada", "shadow_of": None, "asset": served and served.urn, "version": served and served.version,
    }  # fmt: skip
    return {**row, **more}


def test_the_sentence_tells_the_whole_way() -> None:
    story = Story(
        matched=MATCHED,
        attempts=[
            Attempted(str(TWO), outcome="upstream-timeout", ms=9.0),
            Attempted(str(ONE), "bedrock/card", "eu-west-1", OK, 2.0, is_hedge=True),
        ],
        skipped={"mm:model/card@3": "breaker open"},
        failed_over=True,
    )
    said = explain(GROUP, 7777, ONE, ONE, a_row(story))
    assert said == (
        "At revision 2 the rule 'beta' was the first to match, and sends to mm:model/card@2. "
        "mm:model/card@3 was not asked: breaker open. mm:model/card@2 was asked and gave upstream-timeout. "
        "mm:model/card@1 at bedrock/card (eu-west-1) answered."
    )
    told = Told.of(a_row(story))
    assert [(one.hedge, one.tier) for one in told.attempts] == [(False, ""), (True, "eu-west-1")]


def test_what_is_left_out_is_filled_in() -> None:
    plain = Story(attempts=[Attempted(str(ONE), outcome=OK)])
    (attempt,) = Told.of(a_row(plain)).attempts
    assert (attempt.to, attempt.outcome, attempt.breaker, attempt.ms) == (str(ONE), "ok", "closed", 3.0)
    assert explain(GROUP, 7777, ONE, ONE, a_row(plain)).startswith(
        "At revision 2 bucket 7777 of 10000 belonged to the champion"
    )
    assert "no verified approval" in explain(GROUP, 7777, TWO, ONE, a_row(plain))
    assert "before a version was chosen" in explain(
        GROUP, 7777, ONE, None, a_row(Story(), None, error_code="malformed")
    )


def test_ranges_are_whole() -> None:
    assert ranges_of(GROUP) == ((ONE, ((2500, 10_000),)), (TWO, ((0, 2500),)))
