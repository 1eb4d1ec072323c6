"""Numbers as people write them: `0.873`, `"87.3 %"`, `"91,2 %"`, `"12.5 ms"`, `{"value": 3, "unit": "s"}`. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from services.registry.foreign.vocabulary import RATES

_DIGITS = r"[+-]?(?:\d{1,3}(?:[ ,]\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)(?:[eE][+-]?\d{1,3})?"
_NUMBER = re.compile(rf"^[~≈<>=\s]*({_DIGITS})\s*([%\w/µ°]*)\.?$")
DURATIONS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "secs": 1e3, "seconds": 1e3,
             "second": 1e3, "milliseconds": 1.0, "min": 6e4, "minutes": 6e4, "h": 3.6e6, "hours": 3.6e6}  # fmt: skip
SIZES = {"b": 1.0, "bytes": 1.0, "kb": 1e3, "kib": 1024.0, "mb": 1e6, "mib": 1024.0**2, "gb": 1e9, "gib": 1024.0**3}
PERCENTS = ("%", "percent", "pct", "prozent")
_SUFFIX = re.compile(r"_(%|percent|pct|percentage|ns|us|ms|s|sec|secs|seconds|min|kb|mb|gb|kib|mib|gib)$")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in our unit. `said` is how it was converted, where it was; `sure` is false for a guess of the unit."""

    name: str
    value: float
    unit: str
    said: str
    sure: bool = True


def number(value: Any) -> tuple[float, str] | None:
    """The number and the unit that stands behind it; None where a value is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        found = float(value) if abs(value) < 1e300 else math.inf
        return (found, "") if math.isfinite(found) else None
    if not isinstance(value, str) or len(value) > 60 or (match := _NUMBER.match(value.strip())) is None:
        return None
    digits = match[1].replace(" ", "")
    if re.fullmatch(r"[+-]?\d+,\d+(e.*)?", digits, re.I) and not re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", digits):
        digits = digits.replace(",", ".")
    found = float(digits.replace(",", ""))
    return (found, match[2].casefold()) if math.isfinite(found) else None


def figure(name: str, value: Any, unit: str = "") -> Figure | None:
    """A metric's number under its name, in our unit; None where it is no number."""
    read = number(value)
    if read is None:
        return None
    plain, behind = read
    written = f"{value!r}"[:60]
    suffix = _SUFFIX.search(name)
    unit = (unit or behind or (suffix[1] if suffix else "")).strip().casefold()
    bare = name[: suffix.start()] if suffix else name
    if unit in PERCENTS or unit == "percentage":
        return Figure(bare, _scaled(plain, 0.01), "fraction", f"{written} in per cent, as a fraction")
    if unit in DURATIONS and (suffix or behind or unit):
        said = "" if unit == "ms" and isinstance(value, int | float) else f"{_with(written, unit)} in milliseconds"
        return Figure(f"{bare}_ms", _scaled(plain, DURATIONS[unit]), "ms", said)
    if unit in SIZES:
        return Figure(f"{bare}_bytes", _scaled(plain, SIZES[unit]), "bytes", f"{_with(written, unit)} in bytes")
    if not unit and RATES.search(name) and 1 < plain <= 100:
        return Figure(name, _scaled(plain, 0.01), "fraction", f"{written} is above 1, so it is per cent", sure=False)
    return Figure(name, plain, unit, "" if not isinstance(value, str) else f"{written} as a number")


def _with(written: str, unit: str) -> str:
    return written if unit in written.casefold() else f"{written} {unit}"


def _scaled(value: float, by: float) -> float:
    """Without the dust of binary fractions: 87.3 % is 0.873."""
    return float(f"{value * by:.15g}")
