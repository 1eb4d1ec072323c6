"""Where a provider may be: odd spellings, private networks, metadata, and names that change their address."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.errors import AddressRefused, UpstreamError, UpstreamGarbageError
from services.router.gateway.addresses import BaseUrl, Permitted, Resolver
from services.router.gateway.protocols import protocol_of
from services.router.gateway.providers import Upstream, plan
from services.router.gateway.sealing import Secret

NOBODY = Permitted()
LOOPBACK = Permitted.of(["127.0.0.0/8", "::1/128"])


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("https://api.openai.com/v1", BaseUrl("api.openai.com", 443, True, "/v1")),
        ("https://API.OpenAI.com/v1/", BaseUrl("api.openai.com", 443, True, "/v1")),
        ("https://api.openai.com.", BaseUrl("api.openai.com", 443, True)),
        ("http://models.internal:8080", BaseUrl("models.internal", 8080, False)),
        ("https://8.8.8.8:8443/a/b", BaseUrl("8.8.8.8", 8443, True, "/a/b")),
        ("https://[2606:4700:0::1111]", BaseUrl("2606:4700::1111", 443, True)),
        ("https://xn--bcher-kva.example", BaseUrl("xn--bcher-kva.example", 443, True)),
    ],
)
def test_a_plain_url(url: str, parsed: BaseUrl) -> None:
    assert BaseUrl.parse(url) == parsed


@pytest.mark.parametrize(
    "url",
    [
        "", "api.openai.com", "//api.openai.com", "ftp://a.com", "file:///etc/passwd", "gopher://a.com", "https://",
        "https:///v1", "https://user:pw@a.com", "https://a.com@127.0.0.1", "https://a.com#@b.com", "https://a.com?x=1",
        "https://a.com/?", "https://a.com\\@b.com", "https://a.com\t", "https://a.com\r\nhost: b", "https:// a.com",
        "https://a.com:0", "https://a.com:65536", "https://a.com:x", "https://a.com/..", "https://a.com/./x",
        "https://bücher.example", "https://ⓛocalhost", "https://127。0。0。1", "https://a..com", "https://-a.com",
        "https://2130706433", "https://0x7f000001", "https://0x7f.1", "https://017700000001", "https://0177.0.0.1",
        "https://127.1", "https://127.0.1", "https://0", "https://1.2.3.4.5", "https://256.1.1.1", "https://127.0.0.0x1",
        "https://1.2.3.04", "https://0x", "https://[::1%25eth0]", "https://[fe80::1%eth0]", "https://[::1", "https://[1.2.3.4]",
        "https://[v1.x]", "https://a.com/%0d%0a x", "https://a_b.c/\x7f",
    ],
)  # fmt: skip
def test_a_url_that_two_readers_could_read_differently(url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        BaseUrl.parse(url)
    assert "pw" not in str(refused.value)


INSIDE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "169.254.1.1",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "192.0.2.1", "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("text", INSIDE)
def test_what_is_inside_is_refused(text: str) -> None:
    assert ipaddress.ip_address(text) not in NOBODY


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "2a00:1450:4001::1"])
def test_what_is_public_is_not(text: str) -> None:
    assert ipaddress.ip_address(text) in NOBODY


@given(st.ip_addresses())
def test_permitted_means_global_unless_listed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address in NOBODY:
        inner = getattr(address, "ipv4_mapped", None) or address
        assert inner.is_global
        assert not (inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_multicast)


def test_a_wide_network_that_is_allowed_does_not_mean_the_metadata_in_it() -> None:
    wide = Permitted.of(["169.254.0.0/16", "10.0.0.0/8", "fd00::/8"])
    assert ipaddress.ip_address("169.254.7.7") in wide
    assert ipaddress.ip_address("::ffff:10.1.1.1") in wide
    assert ipaddress.ip_address("169.254.169.254") not in wide
    assert ipaddress.ip_address("::ffff:169.254.169.254") not in wide
    assert ipaddress.ip_address("fd00:ec2::254") not in wide
    assert ipaddress.ip_address("169.254.169.254") in Permitted.of(["169.254.169.254"])
    with pytest.raises(AddressRefused):
        Permitted.of(["10.0.0.1/8"])


class Names:
    """A name server whose answers are given one look-up after the other."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        if not self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_a_name_of_one_private_address_among_public_ones_is_refused() -> None:
    with pytest.raises(AddressRefused, match=r"is 10\.0\.0\.1"):
        await Resolver(NOBODY, Names(["8.8.8.8", "10.0.0.1"])).resolve("a.com", 443)
    with pytest.raises(AddressRefused):
        await Resolver(NOBODY, Names(["fe80::1%eth0"])).resolve("a.com", 443)
    with pytest.raises(UpstreamError):
        await Resolver(NOBODY, Names()).resolve("a.com", 443)
    with pytest.raises(UpstreamError):
        await Resolver(NOBODY, Names([])).resolve("a.com", 443)
    found = await Resolver(NOBODY, Names(["8.8.8.8", "8.8.8.8", "2606:4700::1111"])).resolve("a.com", 443)
    assert [str(address) for address in found] == ["8.8.8.8", "2606:4700::1111"]


async def test_numbers_are_not_looked_up_and_are_refused_as_names_are() -> None:
    names = Names(["8.8.8.8"])
    with pytest.raises(AddressRefused):
        await Resolver(NOBODY, names).resolve("169.254.169.254", 80)
    assert names.asked == 0


async def test_localhost_is_refused_by_the_systems_own_look_up() -> None:
    with pytest.raises(AddressRefused, match="not a public address"):
        await Resolver(NOBODY).resolve("localhost", 80)


async def test_what_was_checked_is_what_is_connected_to() -> None:
    """The name answers a permitted address once, and another one ever after, as in DNS rebinding."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        names = Names(["127.0.0.1"], ["192.0.2.66"])
        transport, _ = await Resolver(LOOPBACK, names).connect(
            asyncio.Protocol, BaseUrl("rebinds.example", port, False)
        )
        assert transport.get_extra_info("peername")[:2] == ("127.0.0.1", port)
        assert names.asked == 1, "one look-up a connection; a second could answer otherwise"
        transport.close()
        with pytest.raises(AddressRefused):
            await Resolver(LOOPBACK, names).connect(asyncio.Protocol, BaseUrl("rebinds.example", port, False))


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        base = BaseUrl("two.example", port, False)
        transport, _ = await Resolver(LOOPBACK, Names(["127.0.0.9", "127.0.0.1"])).connect(asyncio.Protocol, base)
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        transport.close()
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await Resolver(LOOPBACK, Names(["127.0.0.9"])).connect(asyncio.Protocol, base)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_but_an_error(status: int) -> None:
    protocol = protocol_of("/v1/chat/completions")
    assert protocol is not None
    body = orjson.dumps({"model": "live", "messages": [{"role": "user", "content": "hi"}]})
    attempt = plan(protocol.open(body, ""), Upstream("openai", "m"), Secret("key"), created=0, request_id="r")
    with pytest.raises(UpstreamGarbageError, match="redirects are not followed"):
        attempt.answer(status, [(b"location", b"http://169.254.169.254/latest")], b"")


@pytest.mark.parametrize("url", ["http://169.254.169.254@evil.com", "https://0x7f.1/v1", "http://2852039166"])
def test_a_providers_odd_url_is_refused_before_anything_is_sent(url: str) -> None:
    protocol = protocol_of("/v1/chat/completions")
    assert protocol is not None
    body = orjson.dumps({"model": "live", "messages": [{"role": "user", "content": "hi"}]})
    upstream = Upstream("openai", "m", base_url=url)
    with pytest.raises(AddressRefused):
        plan(protocol.open(body, ""), upstream, Secret("key"), created=0, request_id="r")
