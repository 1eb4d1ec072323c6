"""A model that knows capitals, asked by OpenAI's chat completions; what it is called says how it behaves."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from typing import Any

import orjson

from services.router.gateway.testing.stub import Exchange


def question(number: int) -> str:
    return f"What is the capital of country {number}?"


def capital(number: int) -> str:
    return f"City {number}"


class Oracle:
    """Answers `City 7.` to who wants one word, and a sentence to everybody else."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: set[bytes] = set()
        self.most_at_once = 0
        self.by_model: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.is_away = False
        self._at_once = 0

    async def __call__(self, exchange: Exchange) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(0.002)
            await self._answer(exchange)
        finally:
            self._at_once -= 1

    async def _answer(self, exchange: Exchange) -> None:
        assert exchange.path.endswith("/v1/chat/completions")
        asked = orjson.loads(exchange.body)
        self.asked.append(asked)
        self.keys.add(exchange.headers.get(b"authorization", b""))
        said = asked["messages"][-1]["content"]
        times = self.by_model[asked["model"]]
        times[said] += 1
        number = int((re.findall(r"country (\d+)", said) or ["0"])[0])
        model = asked["model"]
        if model == "forbidden":
            await exchange.answer(403, b'{"detail": "no"}')
        elif model == "down" or self.is_away or (model == "hiccups" and times[said] < 3):
            await exchange.answer(503, b"")
        elif model == "busy" and times[said] < 2:
            await exchange.answer(429, b"", retry_after="0")
        elif model == "picky" and number % 10 == 0:
            await exchange.answer(400, b'{"error": {"message": "not this one"}}')
        elif model == "half" and number % 3:
            await exchange.answer(400, b"{}")
        elif model == "garbage":
            await exchange.answer(200, b"<html>welcome to the captive portal", b"text/html")
        elif model == "mute":
            await exchange.answer(200, orjson.dumps({"choices": [{"message": {"content": None}}]}))
        else:
            text = f"{capital(number)}." if "one word" in said else f"I believe that it is {capital(number)}"
            usage = {"prompt_tokens": 9, "completion_tokens": len(text.split()), "total_tokens": 9}
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            answer = {"id": "a", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
            await exchange.answer(200, orjson.dumps(answer | ({} if model == "curt" else {"usage": usage})))
