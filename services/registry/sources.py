"""Where artefacts may be fetched from: listed folders, buckets and hosts, and nothing else.

A uri comes from whoever submits, and the registry reaches places that they do not. So https is taken only from listed
hosts, over addresses that are public, which are looked up once and then connected to by number (a second look-up could
answer otherwise), and no redirect is followed. Digest and size are checked on what comes, not on what is promised.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, unquote, urlsplit

from services.registry.errors import SourceFailed, SourceRefused
from shared.errors import TooLarge, Unavailable
from shared.late import loaded

CHUNK = 1024 * 1024
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """An address of the public internet: not private, link-local, loopback, multicast, nor a wrapping of one."""
    if isinstance(address, ipaddress.IPv6Address) and _wraps_ipv4(address):
        return False
    return address.is_global and not address.is_multicast


def _wraps_ipv4(address: ipaddress.IPv6Address) -> bool:
    return bool(address.ipv4_mapped or address.sixtofour or address.teredo or address in NAT64)


NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Sources:
    """Opens uris. `permitted` and `trust` are there for tests, which have no public address."""

    def __init__(
        self,
        *,
        roots: Sequence[Path] = (),
        buckets: Sequence[str] = (),
        hosts: Sequence[str] = (),
        s3_endpoint: str | None = None,
        permitted: Callable[[Address], bool] = is_public,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._roots = tuple(root.resolve() for root in roots)
        self._buckets = tuple(bucket.rstrip("/") + "/" for bucket in buckets)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._s3_endpoint = s3_endpoint
        self._permitted = permitted
        self._trust = trust

    def check(self, uri: str) -> None:
        """Return when a uri is one that may be fetched from, as far as it shows. Raises SourceRefused."""
        parts = _split(uri)
        if parts.scheme == "file":
            self._file(parts)
        elif parts.scheme == "s3":
            self._object(parts)
        elif parts.scheme == "https":
            self._host(parts)
        else:
            raise SourceRefused("a uri begins with file://, s3:// or https://")

    async def read(self, uri: str, most: int) -> AsyncGenerator[bytes, None]:
        """The bytes, at most so many. Raises SourceRefused, SourceFailed, TooLarge, or Unavailable: try again."""
        self.check(uri)
        parts = _split(uri)
        reader = {"file": self._read_file, "s3": self._read_object, "https": self._read_https}[parts.scheme]
        seen = 0
        async with aclosing(reader(parts)) as chunks:
            async for chunk in chunks:
                seen += len(chunk)
                if seen > most:
                    raise TooLarge(f"there are more than {most} bytes at the uri")
                yield chunk

    # file://

    def _file(self, parts: SplitResult) -> Path:
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise SourceRefused("a file uri looks like file:///folder/file")
        path = Path(os.path.realpath(unquote(parts.path)))
        if not any(path.is_relative_to(root) for root in self._roots):
            raise SourceRefused(
                "the file is under no folder that the registry may read; see MINTMARK_REGISTRY_SOURCE_ROOTS"
            )
        return path

    async def _read_file(self, parts: SplitResult) -> AsyncGenerator[bytes, None]:
        file = await asyncio.to_thread(self._open, self._file(parts))
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk

    def _open(self, path: Path) -> IO[bytes]:
        try:
            # Not following a link that was put in its place since, not waiting at a pipe.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SourceFailed(f"the file cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise SourceFailed("the uri names no regular file")
        return os.fdopen(handle, "rb")

    # s3://

    def _object(self, parts: SplitResult) -> tuple[str, str]:
        bucket, key = parts.netloc, unquote(parts.path).lstrip("/")
        if not bucket or not key or parts.query or parts.fragment or "@" in bucket:
            raise SourceRefused("an S3 uri looks like s3://bucket/key")
        if not f"{bucket}/{key}".startswith(self._buckets or ("\x00",)):
            raise SourceRefused(
                "the bucket is not one that the registry may read; see MINTMARK_REGISTRY_SOURCE_BUCKETS"
            )
        return bucket, key

    async def _read_object(self, parts: SplitResult) -> AsyncGenerator[bytes, None]:
        bucket, key = self._object(parts)
        await loaded("boto3")  # half a second that a registry which reads no bucket need not wait
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = await asyncio.to_thread(self._get_object, bucket, key)
            body = answer["Body"]
            try:
                while chunk := await asyncio.to_thread(body.read, CHUNK):
                    yield chunk
            finally:
                body.close()
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status >= 500 or status == 429:
                raise Unavailable(f"S3 answered {status}") from error
            raise SourceFailed(f"S3 answered {error.response.get('Error', {}).get('Code', status)}") from error
        except BotoCoreError as error:
            raise Unavailable(f"S3 does not answer: {type(error).__name__}") from error

    def _get_object(self, bucket: str, key: str) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=5, read_timeout=60)
        return boto3.client("s3", endpoint_url=self._s3_endpoint, config=config).get_object(Bucket=bucket, Key=key)

    # https://

    def _host(self, parts: SplitResult) -> tuple[str, int]:
        try:
            host, port = (parts.hostname or "").lower(), parts.port or 443
        except ValueError:
            raise SourceRefused("the uri's port is not a number from 1 to 65535") from None
        if parts.username is not None or parts.password is not None:
            raise SourceRefused("a uri carries no user name or password")
        if (host if port == 443 else f"{host}:{port}") not in self._hosts:
            raise SourceRefused("the host is not one that the registry may read; see MINTMARK_REGISTRY_SOURCE_HOSTS")
        return host, port

    async def _address(self, host: str, port: int) -> str:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unavailable(f"the host has no address: {error.strerror}") from error
        addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
        if not addresses or not all(self._permitted(ipaddress.ip_address(address)) for address in addresses):
            raise SourceRefused("the host has an address that is not public")
        return addresses[0]

    async def _read_https(self, parts: SplitResult) -> AsyncGenerator[bytes, None]:
        host, port = self._host(parts)
        address = await self._address(host, port)
        await loaded("httpx")
        import httpx

        pinned = httpx.URL(
            scheme="https", host=address, port=port, raw_path=(parts.path or "/").encode() + _query(parts)
        )
        try:
            async with (
                httpx.AsyncClient(
                    verify=self._trust or True,
                    trust_env=False,
                    follow_redirects=False,
                    timeout=httpx.Timeout(30, connect=10),
                ) as client,
                client.stream(
                    "GET",
                    pinned,
                    headers={"host": parts.netloc, "accept-encoding": "identity"},
                    extensions={"sni_hostname": host},
                ) as answer,
            ):
                _check_status(answer.status_code)
                async for chunk in answer.aiter_raw(CHUNK):
                    yield chunk
        except httpx.HTTPError as error:
            raise Unavailable(f"{host} does not answer: {type(error).__name__}") from error


def _check_status(status: int) -> None:
    if 300 <= status < 400:
        raise SourceRefused(f"the host answered {status}; redirects are not followed, so name the last address")
    if status >= 500 or status == 429:
        raise Unavailable(f"the host answered {status}")
    if status != 200:
        raise SourceFailed(f"the host answered {status}")


def _query(parts: SplitResult) -> bytes:
    return b"?" + parts.query.encode() if parts.query else b""


def _split(uri: str) -> SplitResult:
    # What is not printable ASCII is read differently by different programs; an honest uri has it percent-encoded.
    if not uri.isascii() or any(character <= " " or character == "\\" for character in uri) or "%00" in uri:
        raise SourceRefused("a uri is printable ASCII without spaces; encode the rest with %")
    try:
        return urlsplit(uri)
    except ValueError:
        raise SourceRefused("this is not a uri") from None
