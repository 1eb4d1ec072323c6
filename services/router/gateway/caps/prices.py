"""What an answer cost, and what it could cost at the most. Pure; money is whole pico-dollars (1e-12 USD).

A price of 0.0375 USD a million tokens is 37,500 of them a token, so that no sum is ever rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import ceil

from services.router.gateway.rows import Answer
from services.router.group_settings.caps import Price

PICO = Decimal(10) ** 12
MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Rates:
    """A price in pico-dollars: for a million tokens in and out, for a request, for a second."""

    input_per_million: int = 0
    output_per_million: int = 0
    per_request: int = 0
    per_second: int = 0

    @staticmethod
    def of(price: Price) -> Rates:
        return Rates(
            pico(price.input_per_million), pico(price.output_per_million), pico(price.per_request),
            pico(price.per_second),
        )  # fmt: skip

    def cost(self, tokens_in: int | None, tokens_out: int | None, seconds: float | None) -> int | None:
        """Pico-dollars; None where a part that has a price was not measured: nothing is known then."""
        if self.input_per_million and tokens_in is None:
            return None
        if self.output_per_million and tokens_out is None:
            return None
        if self.per_second and seconds is None:
            return None
        tokens = (tokens_in or 0) * self.input_per_million + (tokens_out or 0) * self.output_per_million
        return -(-tokens // MILLION) + self.per_request + ceil((seconds or 0.0) * self.per_second)

    def at_most(self, body_bytes: int, tokens_out: int, seconds: float) -> int:
        """What a request may cost: a token is a byte at least, so that it has no more tokens than bytes."""
        found = self.cost(body_bytes, tokens_out, seconds)
        assert found is not None
        return found

    def dearest(self, other: Rates) -> Rates:
        """The dearer of each part."""
        return Rates(
            max(self.input_per_million, other.input_per_million),
            max(self.output_per_million, other.output_per_million),
            max(self.per_request, other.per_request),
            max(self.per_second, other.per_second),
        )


def pico(usd: Decimal | None) -> int:
    """Rounded up, so that no price is less than was said."""
    return 0 if usd is None else ceil(usd * PICO)


def usd(pico_dollars: int) -> Decimal:
    return Decimal(pico_dollars) / PICO


def cost_of(rates: Rates, answer: Answer, upstream_ms: float | None) -> Decimal | None:
    """What a row says that its answer cost; None where it is not known, and never 0 for that."""
    if answer.status >= 400 and answer.input_tokens is None and answer.output_tokens is None:
        return None
    found = rates.cost(answer.input_tokens, answer.output_tokens, None if upstream_ms is None else upstream_ms / 1000)
    return None if found is None else usd(found)
