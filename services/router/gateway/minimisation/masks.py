"""Personal data in texts, by its form alone: what is found is replaced by the name of what it was.

A small table for rows. It finds what has an unmistakable form and says nothing of names and places; guardrails look
closer. Numbers are checked by their own check digits, so that an order number is not taken for a card.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Pattern(NamedTuple):
    name: str
    looks: re.Pattern[str]
    holds: Callable[[str], bool]


def mask(text: str) -> str:
    """The text without personal data: `[email]`, `[iban]`, `[card]`, `[ssn]`, `[ip]`, `[phone]` in its place."""
    for pattern in PATTERNS:
        text = pattern.looks.sub(lambda found, p=pattern: f"[{p.name}]" if p.holds(found[0]) else found[0], text)  # type: ignore[misc]
    return text


def _is_card(text: str) -> bool:
    """Luhn (ISO/IEC 7812)."""
    digits = [int(one) for one in text if one.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """Mod 97 (ISO 13616)."""
    plain = re.sub(r"[^A-Za-z0-9]", "", text).upper()
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def _is_address(text: str) -> bool:
    return all(int(part) < 256 for part in text.split("."))


def _is_phone(text: str) -> bool:
    return 8 <= sum(one.isdigit() for one in text) <= 15


def _always(_: str) -> bool:
    return True


PATTERNS = (
    Pattern("email", re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), _always),
    Pattern("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b"), _is_iban),
    Pattern("card", re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"), _is_card),
    Pattern("ssn", re.compile(r"(?<!\d)(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?!\d)"), _always),
    Pattern("ip", re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"), _is_address),
    Pattern("phone", re.compile(r"(?<![\w+])(?:\+|00)\d(?:[ ()/.-]{0,2}\d){7,14}(?!\d)"), _is_phone),
)
