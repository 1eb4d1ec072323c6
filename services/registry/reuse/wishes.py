"""What a team means to build, and how well an existing version would do instead. Pure.

Each thing that was asked for is a check with a verdict and a sentence; a candidate that fails one is shown all the
same, with what excludes it. What nobody measured or declared is `unknown`, which is neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.events.base import Kind, Name
from shared.events.upstream import AssetSubmitted, TrainingRequested

Verdict = Literal["fits", "fails", "unknown"]
Risk = Literal["minimal", "limited", "high", "prohibited"]
Cost = Literal["low", "medium", "high"]
RISKS: tuple[str, ...] = get_args(Risk)
COSTS: tuple[str, ...] = get_args(Cost)

Short = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True, pattern=r"^[^\x00]*$")]

WEIGHTS = {"words": 0.40, "task": 0.20, "tags": 0.10, "evidence": 0.15, "use": 0.10, "stage": 0.05}
"""What a candidate's score is made of; what it is for counts more than how far it came."""
STAGES = {"production": 1.0, "monitoring": 0.7, "staging": 0.5, "development": 0.2, "retired": 0.0}
MANY_USERS = 5
INTENT_TAG = "mintmark.intent_id"


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Measure(_Asked):
    """A bound on a measure of the newest evaluation: the whole interval must be on the right side of it."""

    name: Short
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Measure:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("name one of at_least and at_most")
        return self


class Constraints(_Asked):
    """What must be so, whatever else an asset is good for."""

    licences: tuple[Short, ...] = Field(default=(), max_length=50, description="licences that are taken; any one of")
    commercial_use: bool = False
    max_cost: Cost | None = Field(default=None, description="cost class at most")
    max_risk: Risk | None = Field(default=None, description="risk class at most")
    measures: tuple[Measure, ...] = Field(default=(), max_length=20)
    languages: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")], ...] = Field(
        default=(), max_length=50, description="as the tag `language` names them: en, de-CH"
    )


class Wish(_Asked):
    """What a team wants to build, fine-tune or buy."""

    team: Name
    action: Literal["build", "fine-tune", "buy"] = "build"
    purpose: Text
    kind: Kind = "model"
    task: Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[^\x00]+$")] | None = None
    tags: dict[Short, Short] = Field(
        default_factory=dict, max_length=20, description="domain tags, e.g. domain: labour"
    )
    constraints: Constraints = Constraints()


def wish_of(event: AssetSubmitted) -> Wish:
    """What a submission seems to want, to look for what is like it."""
    words = (event.title or "", re.sub(r"[._-]+", " ", event.name), event.description)
    purpose = " ".join(words).replace("\x00", " ").strip()[:4000]
    return Wish.model_construct(
        team="unknown", purpose=purpose, kind=event.kind, task=event.task, tags=dict(event.tags)
    )


def wish_of_words(kind: Kind, title: str, description: str, tags: Mapping[str, str]) -> Wish:
    """The same of a version that is known by its title and description."""
    purpose = f"{title} {description}".replace("\x00", " ").strip()[:4000]
    return Wish.model_construct(team="unknown", purpose=purpose, kind=kind, tags=dict(tags))


def intent_in(tags: Mapping[str, str]) -> UUID | None:
    """The intent that a tag names, for clients that have no other place for it."""
    try:
        return UUID(tags[INTENT_TAG])
    except (KeyError, ValueError):
        return None


def wish_of_training(event: TrainingRequested) -> Wish:
    """The same of a request to train."""
    words = f"{event.name} {event.base.name}"
    return Wish.model_construct(team="unknown", action="fine-tune", purpose=re.sub(r"[._-]+", " ", words))


class Check(_Asked):
    """One thing that was asked for, and whether a candidate has it."""

    what: str
    verdict: Verdict
    reason: str


class Part(_Asked):
    """One part of a score: its value from 0 to 1, how much it weighs, and what it was read from."""

    name: str
    value: float
    weight: float
    reason: str


class User(_Asked):
    """Who uses a version: a group that it serves in, or a consumer that is bound to it."""

    kind: Literal["group", "consumer"]
    name: str
    detail: str = ""


class Licence(_Asked):
    """A version's licence as declared and in effect, with everything that it stands on."""

    declared: str | None
    effective: str | None
    commercial: str
    alternatives: tuple[tuple[str, ...], ...] = ()
    conflicts: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


class Evidence(_Asked):
    """What is known of a version beside what it is."""

    urn: str
    version: int
    title: str
    task: str | None
    tags: dict[str, str]
    stage: str
    registered_at: datetime
    evaluation: dict[str, Any] | None = None
    gate: str | None = None
    risk: str | None = None
    cost: str | None = None
    licence: Licence
    users: tuple[User, ...] = ()


class Candidate(_Asked):
    """An existing version that may do, and why or why not. `excluded_by` is empty where nothing is against it."""

    urn: str
    version: int
    title: str
    task: str | None
    stage: str
    score: float
    parts: tuple[Part, ...]
    checks: tuple[Check, ...]
    excluded_by: tuple[str, ...]
    evaluation: dict[str, Any] | None
    gate: str | None
    risk: str | None
    cost: str | None
    licence: Licence
    users: tuple[User, ...]
    found_by: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        return f"{self.urn}@{self.version}"


def judged(wish: Wish, found: Evidence, relevance: float, found_by: Sequence[str]) -> Candidate:
    """A candidate with its score and what speaks against it. `relevance` (0 to 1) is how near the purpose it is."""
    checks = tuple(checked(wish, found))
    parts = tuple(scored(wish, found, relevance, found_by))
    return Candidate(
        **found.model_dump(exclude={"tags", "registered_at"}),
        score=round(sum(part.value * part.weight for part in parts), 4),
        parts=parts,
        checks=checks,
        excluded_by=tuple(check.reason for check in checks if check.verdict == "fails"),
        found_by=tuple(found_by),
    )


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """What nothing speaks against first, each by score; nothing is left out."""
    return sorted(candidates, key=lambda one: (bool(one.excluded_by), -one.score, one.urn))


def scored(wish: Wish, found: Evidence, relevance: float, found_by: Sequence[str]) -> Iterator[Part]:
    """The parts of a score."""

    def part(name: str, value: float, reason: str) -> Part:
        return Part(name=name, value=round(value, 4), weight=WEIGHTS[name], reason=reason)

    yield part("words", relevance, f"found by {', '.join(found_by)}" if found_by else "none of the purpose's words")
    if wish.task is None:
        yield part("task", 0.5, "no task was asked for")
    else:
        yield part("task", float(found.task == wish.task), f"its task is {found.task or 'not said'}")
    shared = [key for key, value in wish.tags.items() if found.tags.get(key) == value]
    told = f"{len(shared)} of {len(wish.tags)} tags are the same" if wish.tags else "no tags were asked for"
    yield part("tags", len(shared) / len(wish.tags) if wish.tags else 0.5, told)
    if found.evaluation is None:
        yield part("evidence", 0.0, "nobody evaluated it")
    else:
        value = {"pass": 1.0, "review": 0.6, "reject": 0.1}.get(found.gate or "", 0.5)
        yield part("evidence", value, f"evaluated; its gate says {found.gate or 'nothing yet'}")
    users = len(found.users)
    yield part("use", min(users / MANY_USERS, 1.0), f"{users} use it" if users != 1 else "1 uses it")
    yield part("stage", STAGES.get(found.stage, 0.0), f"it is in {found.stage}")


def checked(wish: Wish, found: Evidence) -> Iterator[Check]:
    """Everything that was asked for, one by one."""
    if found.stage == "retired":
        yield Check(what="stage", verdict="fails", reason="it is retired")
    if wish.task is not None and found.task != wish.task:
        verdict: Verdict = "unknown" if found.task is None else "fails"
        yield Check(what="task", verdict=verdict, reason=f"its task is {found.task or 'not said'}, not {wish.task}")
    asked = wish.constraints
    yield from _licence(asked, found.licence)
    yield from _class("cost", asked.max_cost, found.cost, COSTS)
    yield from _class("risk", asked.max_risk, found.risk, RISKS)
    for measure in asked.measures:
        yield _measure(measure, found.evaluation)
    if asked.languages:
        yield _languages(asked.languages, found.tags)


def _licence(asked: Constraints, licence: Licence) -> Iterator[Check]:
    named = licence.effective or "no licence"
    if asked.licences:
        taken = {one.casefold() for one in asked.licences}
        fits = any(all(part.casefold() in taken for part in one) for one in licence.alternatives)
        if licence.gaps:
            verdict, reason = "unknown", f"its licence is not fully known: {'; '.join(licence.gaps[:3])}"
        elif fits:
            verdict, reason = "fits", f"{named} is taken"
        else:
            verdict, reason = "fails", f"{named} is none of {', '.join(asked.licences)}"
        yield Check.model_validate({"what": "licence", "verdict": verdict, "reason": reason})
    if asked.commercial_use:
        said: dict[str, tuple[Verdict, str]] = {
            "allowed": ("fits", f"{named} allows commercial use"),
            "limited": ("unknown", f"{named} allows commercial use with limits, which a person must read"),
            "forbidden": ("fails", f"{named} forbids commercial use"),
        }
        verdict, reason = said.get(licence.commercial, ("unknown", f"nothing is known of commercial use under {named}"))
        yield Check(what="commercial use", verdict=verdict, reason=reason)
    if licence.conflicts and (asked.licences or asked.commercial_use):
        reason = f"licences that it stands on contradict each other: {'; '.join(licence.conflicts[:3])}"
        yield Check(what="licence conflicts", verdict="fails", reason=reason)


def _class(what: str, most: str | None, found: str | None, order: Sequence[str]) -> Iterator[Check]:
    if most is None:
        return
    if found is None:
        yield Check(what=what, verdict="unknown", reason=f"its {what} class was never said")
    elif order.index(found) <= order.index(most):
        yield Check(what=what, verdict="fits", reason=f"its {what} class is {found}")
    else:
        yield Check(what=what, verdict="fails", reason=f"its {what} class is {found}, and {most} is the most")


def _measure(asked: Measure, evaluation: dict[str, Any] | None) -> Check:
    found = (evaluation or {}).get("measures", {}).get(asked.name)
    if found is None:
        return Check(what=asked.name, verdict="unknown", reason=f"no evidence: nobody measured {asked.name}")
    shown = f"{asked.name} is {found['value']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"
    if asked.at_least is not None:
        bound, sure, never = (
            f"at least {asked.at_least:g}",
            found["low"] >= asked.at_least,
            found["high"] < asked.at_least,
        )
    else:
        assert asked.at_most is not None
        bound, sure, never = f"at most {asked.at_most:g}", found["high"] <= asked.at_most, found["low"] > asked.at_most
    if sure:
        return Check(what=asked.name, verdict="fits", reason=f"{shown}, {bound} was asked for")
    if never:
        return Check(what=asked.name, verdict="fails", reason=f"{shown}, and {bound} was asked for")
    return Check(what=asked.name, verdict="unknown", reason=f"{shown} does not tell whether it is {bound}")


def _languages(asked: Sequence[str], tags: dict[str, str]) -> Check:
    said = tags.get("language", tags.get("languages"))
    if said is None:
        return Check(what="languages", verdict="unknown", reason="it has no tag `language`")
    known = {part.strip().casefold() for part in said.split(",")}
    lacking = [one for one in asked if one.casefold() not in known and one.split("-")[0].casefold() not in known]
    if lacking:
        return Check(what="languages", verdict="fails", reason=f"it does not speak {', '.join(lacking)}")
    return Check(what="languages", verdict="fits", reason=f"it speaks {', '.join(asked)}")
