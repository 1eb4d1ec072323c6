"""Licence expressions: SPDX's grammar with models' licences as symbols beside SPDX's own.

What cannot be read is kept as it is and called unknown, with the names that it may have meant; a licence that nobody
knows is a fact about an asset, no error of who submits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

from license_expression import (  # type: ignore[import-untyped]
    AND,
    OR,
    ExpressionError,
    ExpressionParseError,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    Licensing,
    get_license_index,
)

from services.registry.licences.terms import Terms, known, named, near, table

MOST_CHARACTERS = 200
MOST_ALTERNATIVES = 64
"""An expression of 200 characters can have thousands; nobody means one that has more than these."""

Alternative = tuple[Terms, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A licence as it was written and as it is understood: any one of `alternatives`, each all of its terms.

    `unknown` are its parts that are not known, `near` what they may have meant.
    """

    written: str
    expression: str | None
    alternatives: tuple[Alternative, ...] = ()
    unknown: tuple[str, ...] = ()
    near: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        return self.expression is not None


@cache
def _licensing() -> Licensing:
    symbols = [LicenseSymbol(key, aliases=_aliases(terms)) for key, terms in known().items()]
    symbols += [
        LicenseSymbol(row["spdx_license_key"], is_exception=True)
        for row in get_license_index()
        if row.get("is_exception") and row.get("spdx_license_key")
    ]
    return Licensing(symbols)


def _aliases(terms: Terms) -> tuple[str, ...]:
    """One-word names; those of several words are understood only where they stand alone."""
    return tuple(name for name in terms.names if " " not in name and name.casefold() != terms.key.casefold())


@lru_cache(4096)  # names come from outside, so that there may be any number of them
def read(written: str) -> Reading:
    """What a licence field says. Never raises."""
    text = written.strip()
    alone = named(text)
    if alone is not None:
        return Reading(written, alone.key, ((alone,),))
    try:
        if len(text) > MOST_CHARACTERS:
            raise ValueError("too long")
        parsed = _licensing().parse(text, validate=False, strict=True)
        unknown = tuple(_licensing().unknown_license_keys(parsed)) if parsed is not None else (text,)
        if unknown or parsed is None:
            return _unknown(written, unknown)
        return Reading(written, parsed.render(), tuple(_alternatives(parsed)))
    except (ExpressionError, ExpressionParseError, ValueError, KeyError, RecursionError, AttributeError, TypeError):
        return _unknown(written, (text,))


def _unknown(written: str, parts: tuple[str, ...]) -> Reading:
    return Reading(written, None, (), parts, tuple(dict.fromkeys(key for part in parts for key in near(part)))[:5])


def _alternatives(node: object) -> list[Alternative]:
    """The expression as a choice of lists. Raises ValueError where there are more than anybody means."""
    if isinstance(node, OR):
        found = [one for part in node.args for one in _alternatives(part)]
    elif isinstance(node, AND):
        found = [()]
        for part in node.args:
            more = _alternatives(part)
            if len(found) * len(more) > MOST_ALTERNATIVES:
                raise ValueError("too many alternatives")
            found = [(*one, *other) for one in found for other in more]
    elif isinstance(node, LicenseWithExceptionSymbol):
        found = _alternatives(node.license_symbol)
    else:
        found = [(known()[str(getattr(node, "key", ""))],)]
    if len(found) > MOST_ALTERNATIVES:
        raise ValueError("too many alternatives")
    return found


def is_spdx(reading: Reading) -> bool:
    """Whether SPDX knows every licence in it, so that its expression may stand where only SPDX's may."""
    return reading.is_known and all(terms.spdx for one in reading.alternatives for terms in one)


__all__ = ["Alternative", "Reading", "is_spdx", "read", "table"]
