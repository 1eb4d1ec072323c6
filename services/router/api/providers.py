"""Providers over HTTP: set up, changed, given a key. What is answered never holds a key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, SecretStr

from services.router.api.groups import Body, IfMatch, Most, expected
from services.router.gateway.sealing import Secret
from services.router.group_settings.caps import Price
from services.router.handlers.providers import Changer, Providers
from services.router.providers.store import Provider
from shared.http import Page, PageToken
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Reader = Annotated[Principal, require("read", "provider")]
Configurer = Annotated[Principal, require("configure", "provider")]
Operator = Annotated[Principal, require("operate", "provider")]
Text = Annotated[str, Field(max_length=2048)]
MAX_KEY = 16_384


class Configuration(Body):
    """How a provider is asked. What is left out has the provider's own default; `model` may be named by groups."""

    kind: Text
    model: Text | None = None
    base_url: Text | None = None
    region: Text | None = None
    api_version: Text | None = None
    container: Literal["oip", "chat"] | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    limit_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    key_header: Text | None = None
    asks_usage: bool | None = None
    ignore: list[Text] = Field(default=[], max_length=100)
    prices: dict[Text, Price] = Field(default={}, max_length=500)
    """What its models cost, by the provider's own names of them."""

    def configuration(self) -> dict[str, Any]:
        """As `configuration.upstream_of` reads it."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"name", "expected_revision"})


class NewProvider(Configuration):
    name: str


class ChangedProvider(Configuration):
    expected_revision: int | None = Field(default=None, ge=1)


class Key(Body):
    """AWS's is JSON in a string: `{"access_key_id", "secret_access_key"}` or `{"bearer_token"}`."""

    key: SecretStr = Field(min_length=1, max_length=MAX_KEY)


class KeySet(BaseModel):
    """That there is a key; the key itself nobody is shown."""

    set_at: datetime
    set_by: str


class ProviderView(BaseModel):
    """A provider; `key` is null while none is set."""

    name: str
    revision: int
    configuration: dict[str, Any]
    key: KeySet | None
    created_at: datetime
    changed_at: datetime
    changed_by: str

    @classmethod
    def of(cls, provider: Provider) -> ProviderView:
        key = None
        if provider.key_set_at is not None and provider.key_set_by is not None:
            key = KeySet(set_at=provider.key_set_at, set_by=provider.key_set_by)
        return cls(
            name=provider.name, revision=provider.revision, configuration=provider.configuration, key=key,
            created_at=provider.created_at, changed_at=provider.changed_at, changed_by=provider.changed_by,
        )  # fmt: skip


class Rewrapped(BaseModel):
    """How many keys were under another master key."""

    keys: int


def router(providers: Providers) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["providers"])

    def shown(response: Response, provider: Provider) -> ProviderView:
        response.headers["etag"] = f'"{provider.revision}"'
        return ProviderView.of(provider)

    @routes.post("/providers", status_code=201)
    async def create(body: NewProvider, caller: Configurer, response: Response) -> ProviderView:
        """A provider; its key is set apart, by PUT …/key."""
        made = await providers.create(Changer(caller.workspace, caller.actor), body.name, body.configuration())
        response.headers["location"] = f"/router/v1/providers/{body.name}"
        return shown(response, made)

    @routes.post("/providers:rewrap")
    async def rewrap(caller: Operator) -> Rewrapped:
        """Wrap every key by the present master key, so that an older one can be taken out of its file."""
        return Rewrapped(keys=await providers.rewrap(Changer(caller.workspace, caller.actor)))

    @routes.get("/providers")
    async def list_providers(
        caller: Reader, max_results: Most = 50, page_token: Annotated[str | None, Query(max_length=500)] = None
    ) -> Page[ProviderView]:
        """Providers of the workspace, in the order of names."""
        token = PageToken("providers", caller.workspace)
        (after,) = token.read(page_token) or ("",)
        found = await providers.listed(caller.workspace, str(after), max_results + 1)
        items = [ProviderView.of(one) for one in found[:max_results]]
        return Page(items=items, next_page_token=token.make([items[-1].name]) if len(found) > max_results else None)

    @routes.get("/providers/{provider}")
    async def get_provider(provider: str, caller: Reader, response: Response) -> ProviderView:
        """A provider; its ETag is its revision."""
        return shown(response, await providers.one(caller.workspace, provider))

    @routes.put("/providers/{provider}")
    async def replace(
        provider: str, body: ChangedProvider, caller: Configurer, response: Response, if_match: IfMatch = None
    ) -> ProviderView:
        """The whole configuration. Where it names another address, the key is gone and is to be set anew."""
        revision = expected(if_match, body.expected_revision)
        by = Changer(caller.workspace, caller.actor)
        return shown(response, await providers.replace(by, provider, body.configuration(), revision))

    @routes.delete("/providers/{provider}", status_code=204)
    async def remove(provider: str, caller: Configurer) -> None:
        """Take it away, and its key; refused while a group names it."""
        await providers.remove(Changer(caller.workspace, caller.actor), provider)

    @routes.put("/providers/{provider}/key")
    async def set_key(provider: str, body: Key, caller: Configurer, response: Response) -> ProviderView:
        """Set the key, or another in its place: in force at every gateway within the second, without a restart."""
        secret = Secret(body.key.get_secret_value())
        return shown(response, await providers.set_key(Changer(caller.workspace, caller.actor), provider, secret))

    return routes
