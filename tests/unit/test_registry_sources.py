"""Where the registry may fetch from: what is listed, and never a machine's own network."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.registry.errors import SourceFailed, SourceRefused
from services.registry.sources import Sources, is_public
from shared.errors import TooLarge, Unavailable


async def read(sources: Sources, uri: str, most: int = 1000) -> bytes:
    return b"".join([chunk async for chunk in sources.read(uri, most)])


async def test_a_file_is_read_from_under_a_listed_folder_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "models", tmp_path / "secret"
    root.mkdir()
    outside.write_bytes(b"secret")
    (root / "a model.txt").write_bytes(b"tree\n")
    (root / "link").symlink_to(outside)
    (tmp_path / "models-too").mkdir()
    (tmp_path / "models-too" / "x").write_bytes(b"x")
    os.mkfifo(root / "pipe")
    sources = Sources(roots=[root])
    assert await read(sources, f"file://{root}/a%20model.txt") == b"tree\n"
    for refused in (
        f"file://{outside}",
        f"file://{root}/../secret",
        f"file://{root}/%2e%2e/secret",
        f"file://{root}/link",
        f"file://{tmp_path}/models-too/x",
        f"file://otherhost{root}/a%20model.txt",
        f"file://{root}/a%20model.txt?x",
        f"file://{root}/a model.txt",
        f"file://{root}/a%00",
        f"{root}/a%20model.txt",
    ):
        with pytest.raises(SourceRefused):
            await read(sources, refused)
    for failed in (f"file://{root}", f"file://{root}/pipe", f"file://{root}/none"):
        with pytest.raises(SourceFailed):
            await read(sources, failed)
    with pytest.raises(TooLarge):
        await read(sources, f"file://{root}/a%20model.txt", most=4)
    with pytest.raises(SourceRefused):
        await read(Sources(), f"file://{root}/a%20model.txt")


@pytest.mark.parametrize(
    "uri",
    [
        "http://models.example/x",
        "ftp://models.example/x",
        "gopher://models.example/x",
        "data:text/plain,x",
        "https://other.example/x",
        "https://models.example.evil.example/x",
        "https://models.example@other.example/x",
        "https://user:secret@models.example/x",
        "https://models.example:8443/x",
        "https://models.example:99999/x",
        "https://[::1]/x",
        "https://[models.example/x",
        "https://models.example\\@other.example/x",
        "https://mödels.example/x",
        "s3://other/x",
        "s3://models-too/x",
        "s3://models",
        "s3://team/private/x",
        "",
    ],
)
def test_what_is_not_listed_is_refused(uri: str) -> None:
    sources = Sources(hosts=["models.example"], buckets=["models", "team/public"])
    with pytest.raises(SourceRefused):
        sources.check(uri)


def test_what_is_listed_is_not() -> None:
    sources = Sources(hosts=["models.example", "inner.example:8443"], buckets=["models", "team/public"])
    for uri in (
        "https://models.example/a/b?c=d",
        "https://MODELS.example:443/x",
        "https://inner.example:8443/x",
        "s3://models/a/b",
        "s3://team/public/x",
    ):
        sources.check(uri)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def test_addresses_that_are() -> None:
    assert is_public(ipaddress.ip_address("1.1.1.1")) and is_public(ipaddress.ip_address("2606:4700::1111"))


async def test_a_listed_host_with_a_private_address_is_refused_before_a_connection() -> None:
    async with https_server() as (port, _, seen):
        with pytest.raises(SourceRefused, match="not public"):
            await read(Sources(hosts=[f"localhost:{port}"]), f"https://localhost:{port}/model")
        assert seen == []


async def test_https_is_pinned_verified_and_followed_nowhere() -> None:
    async with https_server() as (port, trust, seen):
        host = f"localhost:{port}"
        sources = Sources(hosts=[host], permitted=lambda address: address.is_loopback, trust=trust)
        assert await read(sources, f"https://{host}/model?x=1") == b"tree\n"
        assert seen[-1][0] == "GET /model?x=1 HTTP/1.1" and f"host: {host}" in [line.lower() for line in seen[-1]]
        with pytest.raises(SourceRefused, match="redirects"):
            await read(sources, f"https://{host}/redirect")
        with pytest.raises(SourceFailed, match="404"):
            await read(sources, f"https://{host}/none")
        with pytest.raises(Unavailable):
            await read(sources, f"https://{host}/broken")
        with pytest.raises(TooLarge):
            await read(sources, f"https://{host}/endless", most=100_000)
        unverified = Sources(hosts=[host], permitted=lambda address: address.is_loopback)
        with pytest.raises(Unavailable):
            await read(unverified, f"https://{host}/model")


@asynccontextmanager
async def https_server() -> AsyncIterator[tuple[int, ssl.SSLContext, list[list[str]]]]:
    """A TLS server for `localhost`: its port, a context that trusts it, and the requests that it saw."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(pem + private)
        file.flush()
        context.load_cert_chain(file.name)
    trust = ssl.create_default_context(cadata=pem.decode())
    seen: list[list[str]] = []
    answers = {
        "/model": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ntree\n",
        "/redirect": b"HTTP/1.1 302 Found\r\nlocation: https://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        "/broken": b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
        "/endless": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000,
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            seen.append(lines)
            path = lines[0].split(" ")[1].split("?")[0]
            writer.write(answers.get(path, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], trust, seen
