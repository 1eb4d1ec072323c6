"""What two evaluations of the same rows say of each other. Pure."""

from __future__ import annotations

from typing import Any, Literal

Verdict = Literal["better", "worse", "no difference shown"]


def compared(head: dict[str, Any], base: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By measure: both intervals, and whether the candidate is better or worse beyond doubt.

    Intervals that overlap show no difference. They are of each version alone: a paired test on the rows themselves
    could show a smaller one, but an evaluation says nothing of single rows.
    """
    return {
        name: {"head": head[name], "base": base[name], "verdict": _verdict(head[name], base[name])}
        for name in sorted(set(head) & set(base))
    }


def _verdict(head: dict[str, Any], base: dict[str, Any]) -> Verdict:
    more = head.get("higher_is_better", True)
    if head["low"] > base["high"]:
        return "better" if more else "worse"
    if head["high"] < base["low"]:
        return "worse" if more else "better"
    return "no difference shown"
