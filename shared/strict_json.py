"""JSON from outside, read strictly: no NaN, no duplicate keys, no NUL, no half characters, bounded depth and size."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from shared.errors import Malformed

MAX_DEPTH = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not JSON; leave the value out or send null")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Malformed(f"the key {key!r} stands twice in one object; keep one")
            seen.add(key)
    return found


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Malformed(f"the number {text[:40]} is too large for a 64-bit float")
    return value


def _whole(text: str) -> int:
    if len(text) > 40:
        raise Malformed("an integer has more than 40 digits; send it as a string")
    return int(text)


def loads(data: bytes | str) -> Any:
    """Parse one JSON text; raises Malformed with a sentence that says what is wrong and where."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise Malformed(f"the text is not UTF-8 at byte {error.start}") from None
    _bound_depth(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        raise Malformed(f"this is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    if _SURROGATE.search(text):
        _require_whole_characters(value)
    return value


def _require_whole_characters(value: Any) -> None:
    """Two escapes together make one character beyond the first 65,536; half of such a pair is none, and no UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Malformed("the text holds half of a surrogate pair, which is no character") from None


def _bound_depth(text: str) -> None:
    """Refuse deep nesting before the recursive parser meets it. Brackets inside strings do not count."""
    if "\\u0000" in text or "\x00" in text:
        raise Malformed("the text holds a NUL character, which no field takes")
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise Malformed(f"the text is nested deeper than {MAX_DEPTH} levels")
        elif character in "}]":
            depth -= 1
