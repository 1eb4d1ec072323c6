"""The front of `--separate`: one address, every service behind it, nothing lost on the way."""

from __future__ import annotations

import http.server
import threading
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from deploy.local.front import Front


@pytest.fixture
def service() -> Iterator[str]:
    """A service that answers with what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            self.send_response(201)
            self.send_header("etag", '"7"')
            self.end_headers()
            self.wfile.write(f"{self.path} {self.headers['authorization']} ".encode() + body)

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
async def client(service: str) -> AsyncIterator[httpx.AsyncClient]:
    front = Front({"registry": service, "policy": "127.0.0.1:9"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=front), base_url="http://front") as made:
        yield made


async def test_a_request_reaches_its_service_unchanged(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/registry/v1/assets/mm%3Amodel%2Fx?q=a%20b", content=b"body", headers={"authorization": "Bearer key"}
    )
    assert answer.status_code == 201
    assert answer.headers["etag"] == '"7"'
    assert answer.text == "/registry/v1/assets/mm%3Amodel%2Fx?q=a%20b Bearer key body"


async def test_a_large_body_is_streamed(client: httpx.AsyncClient) -> None:
    answer = await client.post("/registry/v1/upload", content=b"x" * 3_000_000)
    assert len(answer.content) > 3_000_000


async def test_a_service_that_is_down_is_503_and_the_others_are_not(client: httpx.AsyncClient) -> None:
    assert (await client.get("/policy/v1/gates")).status_code == 503
    assert (await client.get("/registry/v1/assets")).status_code == 200


async def test_the_front_is_ready_when_all_are(client: httpx.AsyncClient) -> None:
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["waiting for"] == "policy"


async def test_the_contracts_are_at_the_front_too(client: httpx.AsyncClient) -> None:
    assert (await client.get("/schemas/asset.submitted.v1.json")).status_code == 200


async def test_openlineages_own_address_is_the_registrys(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/lineage", content=b"event", headers={"authorization": "Bearer key"})
    assert answer.text == "/api/v1/lineage Bearer key event"
    assert (await client.get("/api/v1/other")).status_code == 404


async def test_an_unknown_path_is_404(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nonsense")).status_code == 404
