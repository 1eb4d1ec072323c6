"""What a request is told that a guard stopped. Neither names what was found, only who found it."""

from __future__ import annotations

from shared.errors import Refused, Unavailable

__all__ = ["GuardFailed", "GuardrailTripped"]


class GuardrailTripped(Refused):
    """A guardrail of this group refuses the request or its answer."""

    code = "guardrail-tripped"
    status = 400

    def __init__(self, guard: str, on: str) -> None:
        what = "request" if on == "input" else "answer"
        super().__init__(
            f"The guardrail {guard!r} of this group refuses the {what}; change what is asked.", guardrail=guard
        )


class GuardFailed(Unavailable):
    """A guardrail that must not be passed by could not judge; try again."""

    code = "guardrail-failed"

    def __init__(self, guard: str) -> None:
        super().__init__(
            f"The guardrail {guard!r} of this group could not judge, and nothing passes it unjudged; try again.",
            guardrail=guard,
        )
