"""Answers to the very same request, kept for a while: the least recently used goes first, in count and in bytes.

Off unless a group asks for it. Each gateway process keeps its own, and each group's apart, so that no workspace can
learn of another what was asked. Pure: time is given in.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from hashlib import blake2b

import orjson

from services.router.gateway.translator import Answer, Translator
from services.router.group_settings.routing import Cache as Settings

OVERHEAD_BYTES = 1024
"""Of an entry beside its bytes: measured at 0.7 to 0.9 kB."""

MOST_DIGITS = 19
"""Of an integer that surely fits into 64 bits, its sign counted."""
MOST_INPUT_BYTES = 256 << 10
"""Of a request: it is read a second time, which takes 4 ms at this size."""


class Cache:
    """Of one group."""

    __slots__ = ("_entries", "_settings", "hits", "misses", "size")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entries: OrderedDict[bytes, tuple[float, int, Answer]] = OrderedDict()
        self.size = 0
        """Bytes."""
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: bytes, now: float) -> Answer | None:
        """A copy of the answer, for its caller to add headers to; None when there is none that is young enough."""
        found = self._entries.get(key)
        if found is not None and now < found[0]:
            self._entries.move_to_end(key)
            self.hits += 1
            return replace(found[2])
        if found is not None:
            self._drop(key)
        self.misses += 1
        return None

    def keep(self, key: bytes, answer: Answer, now: float) -> None:
        """Keep a copy, unless it alone is larger than the whole. Its tokens and cost were paid once: left out."""
        kept = replace(answer, input_tokens=None, output_tokens=None, cost_usd=None)
        size = OVERHEAD_BYTES + sum(len(one or b"") for one in (kept.headers, kept.body, kept.output, kept.shap))
        if key in self._entries:
            self._drop(key)
        if size > self._settings.max_bytes:
            return
        self._entries[key] = (now + self._settings.ttl_s, size, kept)
        self.size += size
        while self.size > self._settings.max_bytes or len(self._entries) > self._settings.max_entries:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self.size -= self._entries.pop(key)[1]


def key_of(digest: str, translator: Translator) -> bytes | None:
    """Of a request to one version: its input by value, so that spaces and the order of names do not count.

    None where nothing may be kept: of a stream, of a large input, of a value that has no canonical form (a number
    beyond 64 bits), and of an object that names a field twice, of which two readers may read two requests.
    """
    input = translator.input
    if translator.streams or input is None or len(input) > MOST_INPUT_BYTES or translator.canonical is None:
        return None
    try:
        json.loads(input, object_pairs_hook=_once, parse_int=_exact)
        canonical = orjson.dumps(translator.canonical, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, RecursionError):
        return None
    said = b"%b\x1f%b\x1f%b" % (digest.encode(), translator.protocol.encode(), canonical)
    return blake2b(said, digest_size=32).digest()


def _exact(digits: str) -> None:
    """Raises ValueError for a number beyond 64 bits, of which many would be one when read as a double."""
    if len(digits) > MOST_DIGITS:
        raise ValueError


def _once(pairs: list[tuple[str, object]]) -> None:
    """Raises ValueError for a name that is there twice."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError
