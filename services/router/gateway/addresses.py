"""Where a provider may be: its URL is read strictly, its name looked up once, and what was checked is connected to.

A base URL comes from whoever sets up a provider, and the gateway reaches places that they do not: other tenants, the
machine itself, a cloud's metadata. So addresses must be public unless the operator lists their network; a name is
looked up for each connection, all of its addresses must pass, and the connection goes to one of them by number: a
second look-up could answer otherwise (rebinding). Redirects are not followed by anybody; see `providers.attempt`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar
from urllib.parse import urlsplit

from services.router.errors import AddressRefused, UpstreamError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text; raises OSError."""

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)

METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google, DigitalOcean, OpenStack
        "169.254.170.2", "169.254.170.23",  # AWS: credentials of ECS tasks and EKS pods
        "fd00:ec2::254", "fd00:ec2::23",  # the same by IPv6
        "168.63.129.16",  # Azure's wire server; a public number that is none
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "fd20:ce::254",  # Google by IPv6
    )
)  # fmt: skip
"""Refused unless listed one by one: a wide network that the operator allows does not mean these."""

WRAPPED_IN_IPV6 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")
)
LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# The last label decides whether a host is a number: WHATWG's URL standard, "ends in a number".
NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """A provider's base URL, taken apart. `host` is a lower-case name, or an address in its one usual spelling."""

    host: str
    port: int
    tls: bool
    path: str = ""
    """Without a slash at its end."""

    @staticmethod
    @lru_cache(maxsize=4096)  # asked with every request, of the few URLs that there are
    def parse(url: str) -> BaseUrl:
        """Raises AddressRefused for whatever is not plain, since two readers of an odd URL may read two hosts."""
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise AddressRefused(f"{url[:200]!r} is not a plain URL; write the host's name in ASCII (punycode).")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise AddressRefused(f"{url[:200]!r} is not a URL with a valid host and port.") from None
        if parts.scheme not in ("http", "https"):
            raise AddressRefused(f"{url[:200]!r} must begin with https:// or http://.")
        if "@" in parts.netloc:  # and not repeated: there may be a password in it
            raise AddressRefused("The URL must not hold a user or password; set the provider's key instead.")
        if parts.query or parts.fragment or "?" in url or "#" in url:
            raise AddressRefused(f"{url[:200]!r} must end with its path.")
        if not PATH.fullmatch(parts.path) or any(step in ("..", ".") for step in parts.path.split("/")):
            raise AddressRefused(f"{url[:200]!r} must have a plain path.")
        tls = parts.scheme == "https"
        if port == 0:
            raise AddressRefused(f"{url[:200]!r} names port 0.")
        return BaseUrl(_host(parts.hostname or "", url), port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Permitted:
    """Which addresses may be connected to: public ones, and those of the networks that the operator lists."""

    networks: tuple[Network, ...] = ()

    @staticmethod
    def of(texts: Iterable[str]) -> Permitted:
        """From the setting: `10.1.0.0/16`, `127.0.0.1`. Raises AddressRefused."""
        try:
            return Permitted(tuple(ipaddress.ip_network(text.strip()) for text in texts if text.strip()))
        except ValueError as error:
            raise AddressRefused(f"The setting lists something that is not a network: {error}.") from None

    def __contains__(self, address: Address) -> bool:
        if isinstance(address, ipaddress.IPv6Address):
            if address.scope_id is not None:
                return False
            if address.ipv4_mapped is not None:
                address = address.ipv4_mapped
        listed = [network for network in self.networks if network.version == address.version and address in network]
        if address in METADATA:
            return any(network.num_addresses == 1 for network in listed)
        return bool(listed) or is_public(address)


def is_public(address: Address) -> bool:
    """An address of the public internet: not private, shared, link-local, loopback, multicast, nor IPv4 in disguise."""
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in WRAPPED_IN_IPV6):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class Resolver:
    """Looks names up and lets only permitted addresses through. `look_up` is there for tests."""

    def __init__(self, permitted: Permitted, look_up: LookUp | None = None) -> None:
        self._permitted = permitted
        self._look_up = look_up or system_look_up

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """The addresses that may be connected to, by number, instead of `host`.

        Raises AddressRefused when any address of the name is not permitted: a name that has both kinds is no mistake
        that one should guess around. Raises UpstreamError when the name has none.
        """
        try:
            found = [ipaddress.ip_address(host)]
        except ValueError:
            try:
                found = [ipaddress.ip_address(text) for text in await self._look_up(host, port)]
            except (OSError, ValueError) as error:
                raise UpstreamError(f"The provider's host {host!r} cannot be looked up: {error}.") from None
        if not found:
            raise UpstreamError(f"The provider's host {host!r} has no address.")
        for address in found:
            if address not in self._permitted:
                raise AddressRefused(
                    f"{host!r} is {address}, which is not a public address; the operator may allow its network."
                )
        return tuple(dict.fromkeys(found))

    async def connect(
        self, make: Callable[[], ProtocolT], base: BaseUrl, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """A connection to one of the resolved addresses; certificates are checked against the host's name.

        `tls` is None for a plain connection. Raises AddressRefused, UpstreamError.
        """
        addresses = await self.resolve(base.host, base.port)
        loop = asyncio.get_running_loop()
        failed: OSError | None = None
        for address in addresses:
            try:
                return await loop.create_connection(
                    make, str(address), base.port, ssl=tls, server_hostname=base.host if tls else None
                )
            except OSError as error:  # the next address may answer
                failed = error
        raise UpstreamError(f"The provider at {base.authority} cannot be reached: {failed}.")


async def system_look_up(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _host(host: str, url: str) -> str:
    host = host.lower()
    if "[" in url:  # an address of some version, of which the sixth is the only one there is
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise AddressRefused(f"{url[:200]!r} has no valid IPv6 address.") from None
        if address.scope_id is not None:
            raise AddressRefused(f"{url[:200]!r} names a network interface; addresses with a zone are local ones.")
        return str(address)
    labels = host.removesuffix(".").split(".")
    if not all(LABEL.fullmatch(label) for label in labels) or len(host) > 253:
        raise AddressRefused(f"{url[:200]!r} has no valid host.")
    if NUMERIC.fullmatch(labels[-1]):
        # 2130706433, 0x7f.1, 0177.0.0.1 and 127.1 all are 127.0.0.1 to some readers and something else to others.
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise AddressRefused(
                f"{url[:200]!r} writes an address in an unusual way; write four decimal numbers."
            ) from None
    return ".".join(labels)
