"""A provider as somebody sets it up, read strictly once, so that requests find nothing to doubt. It holds no key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from services.router.errors import FieldRefused
from services.router.gateway.addresses import BaseUrl
from services.router.gateway.conversation import JsonObject
from services.router.gateway.protocols.reading import Fields
from services.router.gateway.providers import KINDS, provider_of
from services.router.gateway.providers.base import Upstream
from services.router.group_settings.caps import Price
from shared.errors import MintmarkError

ALL_KINDS = (*KINDS, "sagemaker")
DEFAULTS = Upstream("", "")
PRICES: TypeAdapter[dict[str, Price]] = TypeAdapter(dict[str, Price])
HEADER = re.compile(r"[a-z0-9-]{1,64}")
OURS = frozenset(("host", "connection", "content-type", "content-length", "transfer-encoding", "te", "upgrade"))


def upstream_of(value: object) -> Upstream:
    """The upstream that a JSON object describes; its fields are those of `Upstream`, and `prices` (see `prices_of`).

    Raises FieldRefused, naming the field: a kind that there is not, a URL that is not plain, a region that is none, a
    field that does not exist (a key, say, which is set apart). Whether the URL's host is public is asked when it is
    connected to, and again each time.
    """
    found = Fields(value)
    made = Upstream(
        kind=found.choice("kind", ALL_KINDS) or found.require("kind"),
        model=found.text("model"),
        base_url=found.optional_text("base_url") or "",
        region=found.optional_text("region") or "",
        api_version=found.optional_text("api_version") or "",
        container=found.choice("container", ("oip", "chat")) or DEFAULTS.container,
        max_tokens=found.integer("max_tokens", 1) or DEFAULTS.max_tokens,
        limit_field=found.choice("limit_field", ("max_tokens", "max_completion_tokens")) or DEFAULTS.limit_field,
        key_header=(found.optional_text("key_header") or "").lower(),
        asks_usage=found.boolean("asks_usage") is not False,
        ignore=frozenset(found.texts("ignore")),
    )
    prices_of({"prices": found.take("prices")})
    found.end()
    if not made.model or len(made.model) > 2048 or not made.model.isprintable():
        found.refuse("model", "must be the provider's name of a model, an endpoint or a profile")
    if made.key_header and (not HEADER.fullmatch(made.key_header) or made.key_header in OURS):
        found.refuse("key_header", "must be the name of a header that is free for it: letters, digits and hyphens")
    try:
        BaseUrl.parse(made.base_url or provider_of(made).default_base(made))
    except MintmarkError as error:
        name = "region" if not made.base_url and made.kind in ("bedrock", "sagemaker") else "base_url"
        raise FieldRefused(name, f"is refused: {error.message.rstrip('.')}") from None
    return made


def prices_of(configuration: Mapping[str, Any]) -> dict[str, Price]:
    """What the provider's models cost, by its own names of them; empty where nobody has said. Raises FieldRefused."""
    try:
        return PRICES.validate_python(configuration.get("prices") or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("prices", *map(str, first["loc"])))
        raise FieldRefused(where[:200], f"is refused: {first['msg'].rstrip('.')}") from None


def to_json(upstream: Upstream) -> JsonObject:
    """What `upstream_of` reads; fields that have their defaults are left out."""
    value = {**asdict(upstream), "ignore": sorted(upstream.ignore)}
    plain = {**asdict(DEFAULTS), "ignore": []}
    return {field.name: value[field.name] for field in fields(upstream) if value[field.name] != plain[field.name]}
