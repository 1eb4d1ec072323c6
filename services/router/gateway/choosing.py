"""Which version should answer a request: by rules, else by weights; and whether its answer is known already."""

from __future__ import annotations

import time

from services.router.gateway.arms import Arm
from services.router.gateway.cache import key_of
from services.router.gateway.http_server import Request
from services.router.gateway.pursuit.memory import Memory
from services.router.gateway.pursuit.story import Story
from services.router.gateway.snapshot import Route
from services.router.gateway.translator import Answer, Translator


class Asking:
    """A request as rules look at it."""

    __slots__ = ("_request", "_translator", "unit")

    def __init__(self, request: Request, translator: Translator, unit: str) -> None:
        self._request = request
        self._translator = translator
        self.unit = unit

    def header(self, name: bytes) -> str | None:
        found = self._request.headers.get(name)
        return None if found is None else found.decode("utf-8", "replace")

    @property
    def value(self) -> object:
        return self._translator.value

    def attribute(self, name: str) -> object:
        return self._translator.attribute(name)


class Way:
    """How one request of a group with routing settings finds its answer, and what is to be told of that."""

    __slots__ = ("_key", "memory", "story")

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.story = Story()
        self._key: bytes | None = None

    def place_of(self, route: Route, asking: Asking) -> int:
        """The index of the arm that should answer.

        A rule whose version is none of the group's, or may not be served, gives way to the weights; a challenger that
        may not be served gives way to the champion.
        """
        story = self.story
        matched = story.matched = route.rules.match(asking) if route.rules is not None else None
        if matched is not None:
            if matched.arm is None:
                story.gave_way = f"{matched.to} is no version of the group at this revision"
            elif route.arms[matched.arm].target is None:
                story.gave_way = route.arms[matched.arm].objection
            else:
                return matched.arm
        place = route.place_of(asking.unit)
        if place and route.arms[place].target is None:
            story.gave_way = story.gave_way or route.arms[place].objection
            return 0
        return place

    def known(self, arm: Arm, translator: Translator) -> Answer | None:
        """What the version answered to the very same request of late, if that is kept."""
        cache = self.memory.cache
        if cache is None or arm.target is None:
            return None
        self._key = key_of(arm.version.digest, translator)
        found = cache.find(self._key, time.monotonic()) if self._key is not None else None
        if found is not None:
            self.story.cache = "hit"
            found.headers += b"x-mintmark-cache: hit\r\n"
        return found

    def keep(self, arm: Arm, translator: Translator, answer: Answer) -> None:
        """Keep a whole answer, once it is out: a 200 of the version that was chosen, whoever of its targets gave it."""
        cache, key = self.memory.cache, self._key
        if cache is None or key is None or self.story.cache or answer.status != 200:
            return
        if key == key_of(arm.version.digest, translator):  # not of another version, in whose place this one failed over
            cache.keep(key, answer, time.monotonic())
