"""What a request is told for which there is no room."""

from __future__ import annotations

from shared.errors import Forbidden, Refused, Unavailable


class LimitReached(Refused):
    """As many requests or tokens as may be were used in this window; try again when the next one begins."""

    code = "rate-limited"
    status = 429

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(
            f"The limit of {what} is reached; try again in {retry_after_s} s.", retry_after_s=retry_after_s
        )
        self.retry_after = str(retry_after_s).encode()


class BudgetExceeded(Refused):
    """What may be spent in this period is spent, or would not be enough for this request."""

    code = "budget-exceeded"
    status = 429

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(
            f"The budget of {what} has no room for this request; ask for fewer tokens, or try again when the next "
            f"period begins, in {retry_after_s} s.",
            retry_after_s=retry_after_s,
        )
        self.retry_after = str(retry_after_s).encode()


class CapsUnavailable(Unavailable):
    """How much of a cap is left cannot be asked just now, and what this gateway had of it is used; try again."""

    code = "caps-unavailable"
    retry_after = b"1"


class PriceUnknown(Refused):
    """The group has a budget, and nobody has said what this version costs: set its price."""

    code = "price-unknown"


class ClassRefused(Forbidden):
    """Assets of this risk or cost class may not be called by you."""

    code = "class-refused"
