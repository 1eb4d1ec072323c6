"""A chapter of its own: a vendor's model beside the census models, let through by people and asked as OpenAI's are."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from story import World, fail, submit, tell, version_of

CALLS = 24
MODELS = ("large-2", "small-2")
PERIOD_S = 0.05


@asynccontextmanager
async def vendor() -> AsyncIterator[str]:
    """Stands for a vendor: an OpenAI-compatible server on this machine. Its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.split("content-length:")[1].split("\r\n")[0])
        asked = json.loads(await reader.readexactly(size))
        question = asked["messages"][-1]["content"]
        text = f"{asked['model']} says: {question.split()[-1]}"
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": len(question.split()), "completion_tokens": len(text.split())}
        said = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }  # fmt: skip
        body = json.dumps(said).encode()
        lines = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{lines}connection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def asked(world: World) -> None:
    """From two vendor versions that nobody here can evaluate to a champion and a challenger."""
    world.say("A vendor's model: its missing evaluation waived by two people, then asked in OpenAI's protocol")
    name = world.group.replace("live-employment", "assistant")
    async with vendor() as url:
        provider = {"name": name, "kind": "openai-compatible", "base_url": url}
        await world.call("olga", "POST", "/router/v1/providers", json=provider)
        versions = await asyncio.gather(*(let_through(world, name, model) for model in MODELS))
        await grouped(world, name, versions)
        answers = await asyncio.gather(*(chat(world, name, f"customer-{number}") for number in range(CALLS)))
    shares = Counter(version_of(answer.headers["x-mintmark-version"]) for answer in answers)
    if set(shares) != {str(one["version"]) for one in versions}:
        fail(f"not both versions answered: {dict(shares)}")
    told = " and ".join(f"version {version} ×{count}" for version, count in sorted(shares.items()))
    tell(f"{CALLS} chat completions by {told}")
    for answer in answers[:2]:
        tell(f"[cyan]{answer.headers['x-mintmark-version']}[/]: {answer.json()['choices'][0]['message']['content']}")
    request_id = answers[0].headers["x-mintmark-request-id"]
    row = await again(world, "auditor", f"/router/v1/groups/{name}/inferences/{request_id}")
    said = {key: row[key] for key in ("status", "protocol", "unit", "version", "input_tokens", "output_tokens")}
    tell(f"row {request_id}: {json.dumps(said)}")


async def let_through(world: World, name: str, model: str) -> dict[str, Any]:
    """Registered like any other version; olga and bea set the evaluation aside, and olga approves."""
    parameters = {"vendor": "acme", "model": model}
    submission = {"kind": "vendor-model", "name": name, "training": {"parameters": parameters}}
    asset: dict[str, Any] = (await submit(world, {**submission, "author": "pipeline:census"}))["asset"]
    named = {"urn": asset["urn"], "version": asset["version"]}
    body = {"asset": named, "measure": "evaluation", "reason": "a pilot, watched by hand", "expires_in_days": 30}
    waiver = await again(world, "olga", "/policy/v1/waivers", json=body)
    path = f"/policy/v1/waivers/{waiver['waiver_id']}/decision"
    signed = await world.call("bea", "POST", path, json={"decision": "signed", "reason": "the vendor has figures"})
    body = {"asset": named, "decision": "approved", "reason": "for the pilot"}
    approved = await world.call("olga", "POST", "/policy/v1/approvals", json=body)
    people = f"{signed['proposer']['id']} and {signed['signer']['id']}"
    tell(
        f"[cyan]{asset['urn']}@{asset['version']}[/] ({model}): waived by {people} until {approved['expires_at'][:10]}"
    )
    return {**named, "upstream": {"provider": name, "model": model}}


async def grouped(world: World, name: str, versions: list[dict[str, Any]]) -> None:
    body: dict[str, Any] = {"name": name, "champion": versions[0], "reason": "the large one first"}
    await again(world, "bea", "/router/v1/groups", json=body)
    body = {"challengers": [{"asset": versions[1], "weight_bp": 5_000}], "reason": "is the small one good enough?"}
    path = f"/router/v1/groups/{name}/challengers"
    await again(world, "bea", path, "PUT", json={**body, "expected_revision": 1})
    challenger = str(versions[1]["version"])
    for number in range(100):  # in force at the gateway within a second; half of the units are the challenger's
        answer = await chat(world, name, f"probe-{number}")
        if answer.status_code == 200 and version_of(answer.headers["x-mintmark-version"]) == challenger:
            return
        await asyncio.sleep(PERIOD_S)
    fail(f"the gateway does not serve {name}: {answer.status_code} {answer.text[:300]}")


async def chat(world: World, group: str, user: str) -> httpx.Response:
    """As any OpenAI client asks, with the group's name for the model's."""
    messages = [{"role": "user", "content": f"Who has a job? I am {user}"}]
    body = {"model": group, "messages": messages, "user": user}
    return await world.gateway.post("/v1/chat/completions", json=body, headers=world.headers("app"))


async def again(world: World, who: str, path: str, method: str = "", **more: Any) -> Any:
    """A call that is refused only until a service has heard what it is about; others' news take a moment."""
    method = method or ("POST" if more else "GET")
    for _ in range(200):
        answer = await world.http.request(method, path, headers=world.headers(who), **more)
        if answer.status_code not in (403, 404, 409):
            break
        await asyncio.sleep(PERIOD_S)
    if answer.is_error:
        fail(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
    return answer.json()
