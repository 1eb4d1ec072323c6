"""What a row's tags say is read back by `why` and by the comparison, which is an experiment by weight alone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import uuid_utils

from services.router.comparison.aggregates import Outcome
from services.router.domain import Group, Version, weigh
from services.router.gateway import rows
from services.router.gateway.pursuit.story import OK, Attempted, Story
from services.router.gateway.rules import Matched
from services.router.gateway.shipper.batch import GroupRows
from services.router.handlers.explaining import Told, explain, ranges_of

ONE, TWO = (Version("mm:model/card", number, f"sha256:{number:064x}") for number in (1, 2))
GROUP = weigh(Group("cards", "default", 1, ONE), [(TWO, 2500)], expected_revision=1)


def counted(tags: dict[str, Any]) -> list[Outcome]:
    """As the shipper counts a row of version 1 with these tags."""
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
    return taken.counted([0])


def route_of(tags: dict[str, Any]) -> str:
    return counted(tags)[0].route


MATCHED = Matched("beta", 1, str(TWO))


@pytest.mark.parametrize(
    ("story", "route"),
    [
        (Story(attempts=[Attempted(str(ONE), outcome=OK)]), "weight"),
        (Story(attempts=[Attempted(str(ONE), outcome="upstream-503"), Attempted(str(ONE), outcome=OK)]), "weight"),
        (Story(matched=MATCHED), "rule"),
        (Story(matched=MATCHED, gave_way="it is gone"), "weight"),
        (Story(matched=MATCHED, failed_over=True), "failover"),
        (Story(cache="hit"), "cached"),
        (Story(cache="hit", matched=MATCHED), "rule"),
        (Story(cache="hit", matched=MATCHED, gave_way="it is gone"), "cached"),
    ],
)
def test_only_what_the_weights_drew_is_an_experiment(story: Story, route: str) -> None:
    assert route_of(story.tags()) == route
    assert route_of({**story.tags(), "client": {"cache": "hit", "route": "mine"}}) == route, "nobody says it themselves"


FAILED = Attempted(str(TWO), outcome="upstream-429", status=429)
LET_GO = Attempted(str(TWO), outcome="abandoned")


@pytest.mark.parametrize(
    ("story", "status", "error"),
    [
        (Story(attempts=[FAILED, Attempted(str(ONE), outcome=OK)]), 429, "upstream-429"),
        (Story(attempts=[FAILED, LET_GO, Attempted(str(ONE), outcome=OK)]), 429, "upstream-429"),
        (Story(attempts=[LET_GO, Attempted(str(ONE), outcome=OK)]), 200, None),
        (Story(attempts=[Attempted(str(ONE), outcome=OK)], skipped={str(TWO): "breaker open"}), 503,
         "targets-unavailable"),
        (Story(attempts=[Attempted(str(ONE), outcome=OK)]), 503, "version-not-servable"),
        (Story(attempts=[FAILED, Attempted(str(ONE), outcome=OK)], matched=MATCHED, gave_way="it is gone"), 429,
         "upstream-429"),
    ],
)  # fmt: skip
def test_who_was_drawn_by_weight_is_charged_for_what_another_version_answered(
    story: Story, status: int, error: str | None
) -> None:
    story.failed_over, story.chosen = True, TWO
    answered, charged = counted(story.tags())
    assert (answered.version, answered.route, answered.status) == (1, "failover", 200)
    assert (charged.asset, charged.version, charged.digest) == (TWO.urn, TWO.version, TWO.digest)
    assert (charged.route, charged.status, charged.error_code) == ("drawn", status, error)
    assert (charged.request_id, charged.unit, charged.revision, charged.latency_ms, charged.at) == (
        answered.request_id, answered.unit, answered.revision, answered.latency_ms, answered.at,
    )  # fmt: skip
    assert (charged.score, charged.tokens_in, charged.tokens_out, charged.cost) == (None, None, None, None)


def test_whom_a_rule_chose_is_charged_nothing() -> None:
    tags = Story(attempts=[FAILED], matched=MATCHED, failed_over=True, chosen=TWO).tags()
    assert "drawn" not in tags and len(counted(tags)) == 1


@pytest.mark.parametrize("drawn", ["hmac-sha256:…", {"urn": "mm:model/card"}, [], {"urn": 1, "version": 1}])
def test_what_names_no_version_charges_nobody_and_costs_no_row(drawn: Any) -> None:
    assert [one.route for one in counted({"failed_over": True, "drawn": drawn})] == ["failover"]


def test_an_error_of_no_known_status_is_a_502() -> None:
    named = {"urn": TWO.urn, "version": TWO.version, "digest": TWO.digest, "error": "upstream-failed"}
    _, charged = counted({"failed_over": True, "drawn": named})
    assert (charged.status, charged.error_code) == (502, "upstream-failed")


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
