"""The SDK's clients, with servers that answer what no server of ours does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mintmark._prompt_cache import Wanted
from mintmark.client import Client, Problem
from mintmark.prompts import AsyncPrompts, Prompts, Snapshot
from mintmark.settings import Connection

HERE = Connection(url="http://prompts.test", api_key=None)


def login() -> httpx.Response:
    """What an ingress puts before everything."""
    return httpx.Response(200, html="<html>Log in</html>")


def a_prompt(version: int) -> httpx.Response:
    body = {"title": "greet", "name": "greet", "version": version, "content": {"text": "Hi", "syntax": "plain"}}
    return httpx.Response(200, json=body, headers={"etag": f'"{version}"'})


def server(*answers: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
    """Gives its answers one after the other, the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def to_the_login() -> httpx.Response:
    """What another ingress does with everything."""
    return httpx.Response(302, headers={"location": "https://login.test/"})


STRANGE = [login(), to_the_login(), httpx.Response(200, json=[]), httpx.Response(200, json={"title": "greet"})]


@pytest.mark.parametrize("strange", STRANGE)
def test_a_prompt_is_refreshed_after_somebody_else_answered(strange: httpx.Response) -> None:
    with Prompts(HERE) as prompts:
        prompts._http = httpx.Client(
            base_url=HERE.url, transport=httpx.MockTransport(server(a_prompt(1), strange, a_prompt(2)))
        )
        assert prompts.get("greet").version == 1
        deadline = time.monotonic() + 30
        while prompts.get("greet", ttl_s=0).version == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert prompts.get("greet").version == 2


async def test_the_async_client_does_the_same() -> None:
    async with AsyncPrompts(HERE) as prompts:
        prompts._http = httpx.AsyncClient(
            base_url=HERE.url, transport=httpx.MockTransport(server(a_prompt(1), login(), a_prompt(2)))
        )
        assert (await prompts.get("greet")).version == 1
        for _ in range(2):
            assert (await prompts.get("greet", ttl_s=0)).version == 1
            await asyncio.gather(*prompts._tasks)
        assert (await prompts.get("greet")).version == 2


def test_an_answer_that_is_no_prompt_is_an_outage() -> None:
    with Prompts(HERE) as prompts:
        prompts._http = httpx.Client(base_url=HERE.url, transport=httpx.MockTransport(server(login())))
        assert prompts.get("greet", fallback="Hello").source == "fallback"
        with pytest.raises(Problem, match="Log in") as raised:
            prompts.get("greet")
        assert raised.value.status == 502 and Wanted("greet") not in prompts.cache.kept


def half_of_it() -> httpx.Response:
    return httpx.Response(200, text="{", headers={"content-type": "application/json"})


@pytest.mark.parametrize("strange", [login, to_the_login, half_of_it])
async def test_what_somebody_else_answered_is_no_rendering_and_no_snapshot(
    strange: Callable[[], httpx.Response], tmp_path: Path
) -> None:
    kept = tmp_path / "prompts.json"
    kept.write_text("from before")
    transport = httpx.MockTransport(lambda _: strange())
    with Prompts(HERE) as prompts, Client(HERE) as client:
        client._http = prompts._http = httpx.Client(base_url=HERE.url, transport=transport)
        for call in (
            lambda: prompts.render("greet"),
            lambda: prompts.save_snapshot(kept),
            lambda: client.get("/prompts/v1/prompts"),
        ):
            with pytest.raises(Problem, match="did not answer as the server does") as raised:
                call()
            assert (raised.value.status, raised.value.code) == (502, "unreadable")
    async with AsyncPrompts(HERE) as others:
        others._http = httpx.AsyncClient(base_url=HERE.url, transport=transport)
        with pytest.raises(Problem, match="did not answer as the server does"):
            await others.render("greet")
        with pytest.raises(Problem, match="did not answer as the server does"):
            await others.save_snapshot(kept)
    assert kept.read_text() == "from before"


@pytest.mark.parametrize("strange", [httpx.Response(200, json=[]), httpx.Response(200, json={"messages": []})])
def test_json_of_somebody_else_is_no_rendering(strange: httpx.Response) -> None:
    with Prompts(HERE) as prompts:
        prompts._http = httpx.Client(base_url=HERE.url, transport=httpx.MockTransport(server(strange)))
        with pytest.raises(Problem, match="did not answer as the server does"):
            prompts.render("greet")


def test_a_login_page_is_an_outage_to_whoever_has_a_snapshot() -> None:
    kept = {"title": "greet", "name": "greet", "version": 3, "labels": ["production"], "content": {"text": "Hi"}}
    for strange in (login(), to_the_login()):
        with Prompts(HERE) as prompts:
            prompts._snapshot = Snapshot({"workspace": "w", "at": "2026-11-30T00:00:00Z", "prompts": [kept]})
            prompts._http = httpx.Client(base_url=HERE.url, transport=httpx.MockTransport(server(strange)))
            assert prompts.get("greet", fallback="Hello").source == "snapshot"


@pytest.mark.parametrize("asked", ["Wed, 21 Oct 2015 07:28:00 GMT", "-1", "nan", "99", ""])
def test_a_server_may_ask_for_any_wait(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[Any] = []
    monkeypatch.setattr("mintmark.client.time.sleep", waits.append)
    with Client(HERE) as client:
        answers = server(httpx.Response(503, headers={"retry-after": asked}), httpx.Response(200, json={"a": 1}))
        client._http = httpx.Client(base_url=HERE.url, transport=httpx.MockTransport(answers))
        assert client.get("/x") == {"a": 1}
    assert waits == [5.0 if asked == "99" else 1.0]
