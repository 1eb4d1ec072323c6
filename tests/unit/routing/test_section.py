"""The section `routing`: what it takes, and the sentence with which it refuses the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.router.group_settings.routing import Hedge, Routing

CARD = {"urn": "mm:model/card", "version": 2}
BETA = {"header": "X-Cohort", "equals": "beta"}


def test_nobody_has_what_was_not_asked_for() -> None:
    section = Routing()
    assert section.breaker_in_force is None and section.retries_in_force.most == 0
    assert section.model_dump(mode="json", exclude_defaults=True) == {}
    assert Routing(hedge=Hedge()).retries_in_force.budget_percent == 20
    failing_over = Routing.model_validate({"failover": [{"name": "t", "targets": [{"provider": "p"}]}]})
    assert failing_over.breaker_in_force is not None and failing_over.retries_in_force.most == 2


def test_it_reads_what_it_writes() -> None:
    section = Routing.model_validate(
        {
            "rules": [{"name": "beta", "when": [BETA, {"path": "a.b[0]", "in": [1, "x", True]}], "to": CARD}],
            "failover": [{"name": "eu-west-1", "targets": [{"provider": "bedrock-eu"}, {"version": CARD}]}],
            "timeouts": {"attempt_s": 2, "total_s": 5},
            "hedge": {"percentile": 90},
            "health": {},
            "cache": {"ttl_s": 5},
        }
    )
    assert Routing.model_validate(section.model_dump(mode="json", exclude_defaults=True)) == section
    assert section.rules[0].when[0].header == "x-cohort", "names of headers are one whatever their case"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rulez": []}, "Extra inputs"),
    ({"rules": [{"name": "r", "when": [], "to": CARD}]}, "at least 1"),
    ({"rules": [{"name": "r", "when": [BETA]}]}, "give either to or split"),
    ({"rules": [{"name": "r", "when": [BETA], "to": CARD}] * 2}, "two rules of the name 'r'"),
    ({"rules": [{"name": "r", "when": [{"equals": 1}], "to": CARD}]}, "looks at one place"),
    ({"rules": [{"name": "r", "when": [{**BETA, "unit": True}], "to": CARD}]}, "looks at one place"),
    ({"rules": [{"name": "r", "when": [{"header": "a"}], "to": CARD}]}, "asks one thing"),
    ({"rules": [{"name": "r", "when": [{**BETA, "prefix": "b"}], "to": CARD}]}, "asks one thing"),
    ({"rules": [{"name": "r", "when": [{**BETA, "header": "a b"}], "to": CARD}]}, "no name of a header"),
    ({"rules": [{"name": "r", "when": [{**BETA, "header": "Authorization"}], "to": CARD}]}, "proves who asks"),
    ({"rules": [{"name": "r", "when": [{"path": "a..b", "present": True}], "to": CARD}]}, "is no path"),
    ({"rules": [{"name": "r", "when": [BETA], "split": [{"to": CARD, "weight_bp": 9999}]}]}, "adds up to 9999"),
    ({"rules": [{"name": "r", "when": [BETA], "split": [{"to": CARD, "weight_bp": 5000}] * 2}]}, "a version twice"),
    ({"failover": [{"name": "t", "targets": [{}]}]}, "names a version, a provider, or both"),
    ({"failover": [{"name": "t", "targets": [{"version": CARD, "model": "m"}]}]}, "name the provider too"),
    ({"timeouts": {"attempt_s": 5, "total_s": 1}}, "raise total_s"),
    ({"retries": {"budget_percent": 101}}, "less than or equal to 100"),
    ({"hedge": {"percentile": 100}}, "less than 100"),
    ({"breaker": {"failure_share": 0}}, "greater than 0"),
    ({"cache": {"ttl_s": 0}}, "greater than 0"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "sentence"), REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Routing.model_validate(settings)


def test_the_how_to_shows_settings_that_are_taken() -> None:
    text = (Path(__file__).parents[3] / "docs/how-to/route-traffic.md").read_text()
    shown = json.loads(text.split("<<'END'\n")[1].split("\nEND")[0])
    section = Routing.model_validate(shown["settings"])
    assert set(shown["settings"]) == set(Routing.model_fields), "all of it is shown"
    assert Routing.model_validate(section.model_dump(mode="json", exclude_defaults=True)) == section
