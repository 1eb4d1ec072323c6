"""Headers that prove to a provider who asks: bearer tokens, key headers, AWS's signature by botocore's own signer."""

from __future__ import annotations

import orjson

from services.router.errors import SealBroken
from services.router.gateway.addresses import BaseUrl
from services.router.gateway.providers.base import HeaderLines, Signer, Upstream
from services.router.gateway.sealing import Secret

JSON_HEADER = ("content-type", "application/json")
AWS_EVENT_STREAM = "application/vnd.amazon.eventstream"
AWS_NEEDS = ("botocore.auth", "botocore.awsrequest", "botocore.credentials", "botocore.eventstream")


def by_header(name: str) -> Signer:
    """The key as it is, in a header."""

    def sign(
        upstream: Upstream, base: BaseUrl, path: str, body: bytes, secret: Secret | None, stream: bool
    ) -> HeaderLines:
        return (JSON_HEADER, (name, _required(secret, upstream).reveal()))

    return sign


def by_bearer(
    upstream: Upstream, base: BaseUrl, path: str, body: bytes, secret: Secret | None, stream: bool
) -> HeaderLines:
    """`Authorization: Bearer`, or the header that the upstream names; nothing without a key."""
    if secret is None:
        return (JSON_HEADER,)
    if upstream.key_header:
        return (JSON_HEADER, (upstream.key_header, secret.reveal()))
    return (JSON_HEADER, ("authorization", f"Bearer {secret.reveal()}"))


def by_sigv4(service: str) -> Signer:
    """AWS Signature Version 4 by botocore.

    The key is JSON: `{"access_key_id", "secret_access_key", "session_token"?}`, or `{"bearer_token"}`, which is
    Bedrock's own kind of API key.
    """

    def sign(
        upstream: Upstream, base: BaseUrl, path: str, body: bytes, secret: Secret | None, stream: bool
    ) -> HeaderLines:
        held = _aws_key(_required(secret, upstream))
        accept = ("accept", AWS_EVENT_STREAM if stream else "application/json")
        if "bearer_token" in held:
            return (JSON_HEADER, accept, ("authorization", f"Bearer {held['bearer_token']}"))
        from botocore.auth import SigV4Auth  # large; loaded by the snapshot that has such a provider (AWS_NEEDS)
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        scheme = "https" if base.tls else "http"
        request = AWSRequest(
            "POST",
            f"{scheme}://{base.authority}{base.path}{path}",
            {"Content-Type": "application/json", "Accept": accept[1]},
            body,
        )
        credentials = Credentials(held["access_key_id"], held["secret_access_key"], held.get("session_token"))
        SigV4Auth(credentials, service, upstream.region).add_auth(request)
        return tuple((name.lower(), str(value)) for name, value in request.headers.items())

    return sign


def _required(secret: Secret | None, upstream: Upstream) -> Secret:
    if secret is None:
        raise SealBroken(f"No key is set for this provider of kind {upstream.kind}; set one.")
    return secret


def _aws_key(secret: Secret) -> dict[str, str]:
    try:
        held = orjson.loads(secret.reveal())
    except orjson.JSONDecodeError:
        held = None
    texts = isinstance(held, dict) and all(isinstance(value, str) and value for value in held.values())
    if texts and ("bearer_token" in held or {"access_key_id", "secret_access_key"} <= set(held)):
        return dict(held)
    raise SealBroken(
        'A key of AWS is JSON: {"access_key_id": …, "secret_access_key": …, "session_token": …} or {"bearer_token": …}.'
    )
