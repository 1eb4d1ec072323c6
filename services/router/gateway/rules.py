"""A group's rules, compiled: the first whose conditions all hold for a request says which version answers it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Protocol

from services.router.domain import Group, bucket_of
from services.router.group_settings.routing import Condition, Rule, VersionRef

STEP = re.compile(r"([^.\[\]$][^.\[\]]*)|\[(\d+)\]")
MISSING: Final = object()
"""What is not there; null is."""


class Asked(Protocol):
    """What rules may look at in a request."""

    def header(self, name: bytes) -> str | None: ...

    @property
    def unit(self) -> str: ...

    @property
    def value(self) -> object:
        """The body as JSON; MISSING where it is none."""
        ...

    def attribute(self, name: str) -> object: ...


@dataclass(frozen=True, slots=True)
class Matched:
    """The rule that decided, and the index of its version among the group's arms; None where it is not one of them."""

    rule: str
    arm: int | None
    to: str
    bucket: int | None = None
    """Of a split."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    name: str
    conditions: tuple[Callable[[Asked], bool], ...]
    salt: str
    ends: tuple[int, ...]
    arms: tuple[int | None, ...]
    to: tuple[str, ...]


class Rules:
    """Made with the snapshot, asked by every request of the group. Immutable."""

    def __init__(self, rules: Sequence[Rule], group: Group) -> None:
        places = {(one.urn, one.version): place for place, one in enumerate(group.versions)}
        self._rules = tuple(_compiled(rule, group, places) for rule in rules)

    def match(self, asked: Asked) -> Matched | None:
        """The first rule that holds; None leaves it to the weights."""
        for rule in self._rules:
            if all(holds(asked) for holds in rule.conditions):
                if len(rule.ends) == 1:
                    return Matched(rule.name, rule.arms[0], rule.to[0])
                bucket = bucket_of(rule.salt, asked.unit)
                place = next(place for place, end in enumerate(rule.ends) if bucket < end)
                return Matched(rule.name, rule.arms[place], rule.to[place], bucket)
        return None


def _compiled(rule: Rule, group: Group, places: Mapping[tuple[str, int], int]) -> _Compiled:
    champion = VersionRef(urn=group.champion.urn, version=group.champion.version)
    shares = rule.split or ()
    to = [one.to for one in shares] or [champion if isinstance(rule.to, str) or rule.to is None else rule.to]
    ends = tuple(accumulate(one.weight_bp for one in shares)) or (1,)
    return _Compiled(
        name=rule.name,
        conditions=tuple(_condition(one) for one in rule.when),
        salt=f"{group.name}\x1frule\x1f{rule.name}",
        ends=ends,
        arms=tuple(places.get((one.urn, one.version)) for one in to),
        to=tuple(str(one) for one in to),
    )


def _condition(condition: Condition) -> Callable[[Asked], bool]:
    find, holds = _place(condition), _test(condition)
    return lambda asked: holds(find(asked))


def _place(condition: Condition) -> Callable[[Asked], object]:
    if condition.header is not None:
        name = condition.header.encode()
        return lambda asked: MISSING if (found := asked.header(name)) is None else found
    if condition.attribute is not None:
        attribute = condition.attribute
        return lambda asked: asked.attribute(attribute)
    if condition.path is not None:
        steps = steps_of(condition.path)
        return lambda asked: at(asked.value, steps)
    return lambda asked: asked.unit


def _test(condition: Condition) -> Callable[[object], bool]:
    is_text = condition.header is not None or condition.unit is not None
    if condition.present is not None:
        wanted = condition.present
        return lambda found: (found is not MISSING) is wanted
    if condition.prefix is not None:
        prefix = condition.prefix
        return lambda found: isinstance(found, str) and found.startswith(prefix)
    values = condition.is_in if condition.is_in is not None else (condition.equals,)
    wanted_keys = frozenset(_key(_spelled(one) if is_text else one) for one in values)
    return lambda found: _key(found) in wanted_keys


def _spelled(value: object) -> object:
    """As a header would have it: true, 3, 2.5."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key(value: object) -> tuple[str, object]:
    """Equal where JSON's values are: 1 is 1.0, and is neither true nor "1". Lists and objects equal nothing."""
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, int | float):
        return "number", value
    if isinstance(value, str):
        return "text", value
    return "other", None if value is None else id(value)


def steps_of(path: str) -> tuple[str | int, ...]:
    """`$.a.b[0].c` -> ("a", "b", 0, "c")."""
    return tuple(name or int(index) for name, index in STEP.findall(path))


def at(value: object, steps: Sequence[str | int]) -> object:
    """What is there; MISSING where the path ends before. A name of digits also counts into a list: `inputs.0.name`."""
    for step in steps:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step, MISSING)
        elif isinstance(value, list):
            number = int(step) if isinstance(step, int) or (step.isascii() and step.isdigit()) else len(value)
            value = value[number] if number < len(value) else MISSING
        else:
            return MISSING
    return value
