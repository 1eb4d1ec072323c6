"""JWTs of the customer's OIDC issuer: algorithm, issuer, audience, expiry and key must all be right."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import Unauthenticated, Unavailable
from shared.identity.principal import Principal
from shared.late import loaded

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]
"""Asymmetric only: with an HMAC allowed, the public key would be a signing key."""
LEEWAY_S = 60
KEYS_LIVE_S = 300.0


class OidcSettings(BaseSettings):
    """MINTMARK_OIDC_*. Without an issuer no token is accepted."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_OIDC_", frozen=True)

    issuer: str | None = None
    audience: str = "mintmark"
    jwks_file: Path | None = None
    jwks_url: str | None = None
    roles_claim: str = "roles"
    workspace_claim: str = "workspace"


class Tokens:
    """Turns a token into a principal."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._keys: KeySet | None = None
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def authenticate(self, token: str) -> Principal:
        """The principal of a token. Raises Unauthenticated, or Unavailable when the issuer's keys cannot be had."""
        if self._settings.issuer is None:
            raise Unauthenticated("tokens are not accepted here: no OIDC issuer is configured; use an API key")
        await loaded("joserfc.jwt")  # an installation without an issuer never needs it
        from joserfc import jwt
        from joserfc.errors import JoseError

        keys = await self._key_set()
        try:
            decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            for name in ("jwk", "jku", "x5u", "x5c", "crit"):
                if name in decoded.header:
                    raise Unauthenticated(f"a token may not carry {name} in its header")
            jwt.JWTClaimsRegistry(
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self._settings.issuer},
                aud={"essential": True, "value": self._settings.audience},
                sub={"essential": True},
                exp={"essential": True},
            ).validate(decoded.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise Unauthenticated(f"the token is not valid: {error}") from None
        return self._principal(decoded.claims)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        roles = claims.get(self._settings.roles_claim, [])
        workspace = claims.get(self._settings.workspace_claim, "default")
        if not isinstance(roles, list) or not isinstance(workspace, str):
            raise Unauthenticated("the token's roles are not a list, or its workspace is not a text")
        return Principal(id=f"user:{claims['sub']}", workspace=workspace, roles=frozenset(map(str, roles)))

    async def _key_set(self) -> KeySet:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        async with self._lock:
            if self._keys is not None and time.monotonic() - self._fetched < KEYS_LIVE_S:
                return self._keys
            try:
                document = await self._document()
                self._keys = KeySet.import_key_set(document)
            except (OSError, ValueError, JoseError) as error:
                if self._keys is None:
                    raise Unavailable(f"the issuer's keys cannot be read: {error}") from error
            self._fetched = time.monotonic()
            assert self._keys is not None
            return self._keys

    async def _document(self) -> Any:
        if self._settings.jwks_file is not None:
            return json.loads(await asyncio.to_thread(self._settings.jwks_file.read_text))
        await loaded("httpx")
        import httpx

        try:
            async with httpx.AsyncClient(timeout=5) as client:
                url = self._settings.jwks_url
                if url is None:
                    discovery = await client.get(
                        f"{str(self._settings.issuer).rstrip('/')}/.well-known/openid-configuration"
                    )
                    url = str(discovery.raise_for_status().json()["jwks_uri"])
                return (await client.get(url)).raise_for_status().json()
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error
