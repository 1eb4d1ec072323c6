"""Where a template has its variables. Imported by every rendering process, so it brings nothing along."""

from __future__ import annotations

import re

EXAMPLES = "examples"
"""The variable that few-shot examples are under in a jinja text, and the role of the message that they replace."""

# One run of characters that are no brace: with optional spaces around a lazy run, 100,000 spaces took minutes.
PLACE = re.compile(r"\{\{([^{}]*)\}\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def places(text: str) -> list[str]:
    """The names between double braces of a plain text."""
    return [name for found in PLACE.findall(text) if 0 < len(name := found.strip()) <= 200]


def reads_alike(text: str) -> bool:
    """True where a text means the same in both syntaxes: nothing but `{{name}}` has a meaning in it."""
    return "{%" not in text and "{#" not in text and all(NAME.fullmatch(found.strip()) for found in PLACE.findall(text))
