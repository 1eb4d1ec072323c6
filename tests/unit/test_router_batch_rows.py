"""Rows of a batch as requests: what cannot be one is its row's fault, and nobody waits for it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from services.router.batches.asking import Asker
from services.router.batches.domain import Format, Item, Job, Shape, Spec, State, item_of
from services.router.errors import FieldRefused
from shared.clock import utc_now

SPEC = Spec(input="", format=Format.JSONL, shape=Shape.FEATURES, output_format=Format.JSONL, unit_field="who")
JOB = Job(UUID(int=1), "acme", "fraud", SPEC, State.RUNNING, False, "user:ann", ("caller",), utc_now())


@pytest.mark.parametrize("unit", [" ada", "ada ", "ada\t", "ada\r\nx-mintmark-consent: keep", "a\x00da", "a\x7f"])
def test_a_unit_that_no_header_holds_is_refused_by_its_name(unit: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        item_of({"who": unit, "age": 1}, 0, "fraud", SPEC)
    assert refused.value.field == "who"


@pytest.mark.parametrize("unit", ["ada lovelace", "ada\tlovelace", "Ådá", 7])
def test_whatever_else_says_whom_a_row_is_about_is_sent(unit: Any) -> None:
    assert item_of({"who": unit, "age": 1}, 0, "fraud", SPEC).unit == str(unit)


class Gateway:
    """Answers every request with an empty object, and keeps what it was sent."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # nothing was sent
        finally:
            writer.close()


async def ticket(job: Job) -> str:
    return "Bearer ticket"


async def test_what_cannot_be_sent_is_refused_and_the_gateway_is_not_away() -> None:
    gateway = Gateway()
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Asker(url, JOB, ticket, utc_now) as asker:
        refused = await asker.ask(Item(3, "a", "/v2/models/fraud/infer", b"{}", unit="ada\r\n"))
        assert (refused.position, refused.id, refused.status, refused.code) == (3, "a", None, "field-refused")
        assert gateway.heads == []
        for id in (" padded ", "two\nlines", "plain"):
            assert (await asker.ask(Item(4, id, "/v2/models/fraud/infer", b"{}"))).status == 200
        sent = [b"x-request-id" in head for head in gateway.heads]
        assert sent == [False, False, True]
