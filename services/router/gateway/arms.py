"""Who serves a group: versions where they are served, and what each of their answers says of them, rendered once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from services.router.domain import Group, Hosted, Version
from services.router.errors import ApprovalRefused
from services.router.gateway.addresses import BaseUrl
from services.router.gateway.caps.prices import Rates
from services.router.gateway.protection import rates_of
from services.router.gateway.providers import Upstream, provider_of
from services.router.gateway.providers.configuration import prices_of, upstream_of
from services.router.gateway.rows import served_by
from services.router.gateway.sealing import Secret
from services.router.gateway.snapshot_rows import Tensor
from services.router.group_settings.caps import GroupPrice, Price


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model server or a provider listens; one pool of connections each."""

    host: str
    port: int
    tls: bool
    is_foreign: bool = False
    """A provider's: its address is looked up and judged at each connection (addresses.py)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A version that may be served, and the heads of the requests to it, rendered once."""

    version: Version
    endpoint: Endpoint
    model_path: str
    infer_head: bytes
    stream_head: bytes
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    """Names of the model's inputs, in the order of its SHAP values."""
    feature_names: frozenset[str] = frozenset()

    @staticmethod
    def at(version: Version, url: str, model_name: str, inputs: Mapping[str, Tensor] | None = None) -> Target:
        """Raises ApprovalRefused when `url` is no http(s) base URL that a request line can be made of.

        Requests name the version, because a model server may hold several under one name.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ApprovalRefused(f"{version} has no usable endpoint: {url[:200]!r} is no URL: {error}.") from None
        path = f"{parts.path.rstrip('/')}/v2/models/{model_name}/versions/{version.version}"
        if parts.scheme not in ("http", "https") or not parts.hostname or not _is_plain(path + parts.netloc):
            raise ApprovalRefused(f"{version} has no usable endpoint: {url[:200]!r} is not a plain http(s) base URL.")
        tls = parts.scheme == "https"
        endpoint = Endpoint(parts.hostname, port or (443 if tls else 80), tls)
        host = parts.netloc.rpartition("@")[2]
        head = "POST {}/{} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n"
        infer, stream = (head.format(path, verb, host).encode() for verb in ("infer", "generate_stream"))
        inputs = inputs or {}
        return Target(version, endpoint, path, infer, stream, inputs, tuple(inputs), frozenset(inputs))

    def get(self, suffix: str = "") -> bytes:
        """A whole GET request for the model's metadata or, with `/ready`, its readiness."""
        host = f"{self.endpoint.host}:{self.endpoint.port}"
        return f"GET {self.model_path}{suffix} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()


@dataclass(frozen=True, slots=True)
class ProviderTarget:
    """A version that a provider answers for, and the key by which it is asked, if it needs one."""

    version: Version
    endpoint: Endpoint
    upstream: Upstream
    secret: Secret | None = field(repr=False)
    price: Price | None = None
    feature_names: ClassVar[frozenset[str]] = frozenset()

    @staticmethod
    def of(hosted: Hosted, configuration: Mapping[str, Any], secret: Secret | None) -> ProviderTarget:
        """Raises FieldRefused, AddressRefused."""
        model = hosted.model or configuration.get("model", "")
        upstream = upstream_of({**configuration, "model": model})
        provider = provider_of(upstream)
        provider.load()  # snapshots are built in a thread
        base = BaseUrl.parse(upstream.base_url or provider.default_base(upstream))
        endpoint = Endpoint(base.host, base.port, base.tls, True)
        return ProviderTarget(hosted.version, endpoint, upstream, secret, prices_of(configuration).get(model))


Served = Target | ProviderTarget


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that was left out, with the sentence that says why."""

    version: Version
    reason: str


@dataclass(frozen=True, slots=True)
class Arm:
    """A version as it serves a group, with what each of its answers and rows says of it, rendered once."""

    version: Version
    target: Served | None
    name: str
    columns: bytes
    header_lines: bytes
    objection: str = ""
    """Why there is no target."""
    rates: Rates | None = None
    """What its answers cost; None where nobody has said."""

    def priced(self, prices: Iterable[GroupPrice]) -> Arm:
        return replace(self, rates=rates_of(prices, self.version, getattr(self.target, "price", None)))

    @staticmethod
    def of(
        group: Group, version: Version, target: Served | None, refusal: Refusal | None = None, role: str = ""
    ) -> Arm:
        name = str(version)
        role = role or ("champion" if version == group.champion else "challenger")
        columns = served_by(version.urn, version.version, version.digest, role)
        objection = "" if target else refusal.reason if refusal else f"{version} has no verified approval or endpoint."
        return Arm(version, target, name, columns, lines_of(group.name, name), objection)


def lines_of(group: str, version: str) -> bytes:
    """The headers that say who answered; `version` is "none" where nobody did."""
    return f"x-mintmark-group: {group}\r\nx-mintmark-version: {version}\r\n".encode()


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
