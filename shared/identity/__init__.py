"""Who is calling and what they may do: API keys, OIDC tokens, event proofs, and Cedar for every decision."""

from shared.identity.principal import Principal

__all__ = ["Principal"]
