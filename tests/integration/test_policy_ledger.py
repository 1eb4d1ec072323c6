"""The ledger on a real Kafka and Postgres: every event once, one chain a workspace, and tampering shows."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from services.policy import verifier
from shared.events.base import Actor
from shared.events.registry import AssetChanged
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
VERIFIER = Path(verifier.__file__)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def changed(name: str, after: Any = 1) -> AssetChanged:
    ada = Actor(id="user:ada", proven=True)
    at = datetime(2026, 11, 20, tzinfo=UTC)
    return AssetChanged(urn=f"mm:model/{name}", change="metadata", after=after, actor=ada, at=at)


async def recorded(client: httpx.AsyncClient, count: int, **query: str) -> list[dict[str, Any]]:
    """The ledger's entries, once there are so many."""

    async def look() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await client.get("/policy/v1/ledger", params=query)).json()["items"]
        return found

    return await eventually(look, lambda found: len(found) >= count, what=f"{count} entries")


async def exported(client: httpx.AsyncClient, path: Path) -> Path:
    path.write_bytes((await client.get("/policy/v1/ledger/export")).content)
    return path


def verdict(installation: Installation, file: Path, *more: str) -> tuple[int, str]:
    """What the verifier says, alone: no package of ours can be imported there."""
    command = [
        sys.executable,
        "-I",
        "-S",
        str(VERIFIER),
        str(file),
        "--trust",
        str(installation.folder / "trust.json"),
        *more,
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    return run.returncode, run.stdout + run.stderr


async def test_every_event_is_recorded_once_and_the_export_verifies_offline(
    installation: Installation, tmp_path: Path
) -> None:
    key = installation.key("user:aud", "auditor")
    await installation.start("policy")
    odd = 'ü 💡 "quoted" back\\slash\nnew line'
    for number in range(5):
        await installation.publish(
            changed("a", odd), traceparent=f"00-{TRACE}-b7ad6b7169203331-01", event_id=f"a{number}", times=3
        )
    await installation.publish(changed("b"), event_id=odd, source=odd, key=key)
    await installation.send_raw("asset.changed", b"\xff\xfe not json", [], b"mm:model/garbage")
    async with installation.client("policy", key) as client:
        entries = await recorded(client, 7)
        assert [entry["index"] for entry in entries] == list(range(1, 8))
        assert sorted(entry["id"] for entry in entries if entry["id"].startswith("a")) == [
            "a0", "a1", "a2", "a3", "a4", "asset.changed/0/16",
        ]  # fmt: skip
        assert {entry["trace_id"] for entry in await recorded(client, 5, trace=TRACE)} == {TRACE}
        assert len(await recorded(client, 5, key="mm:model/a")) == 5
        assert len(await recorded(client, 6, type="asset.changed.v1")) == 6
        page = (await client.get("/policy/v1/ledger", params={"max_results": 4})).json()
        rest = await client.get("/policy/v1/ledger", params={"max_results": 4, "page_token": page["next_page_token"]})
        assert [entry["index"] for entry in rest.json()["items"]] == [5, 6, 7]
        assert (await client.get("/policy/v1/ledger/entries/3")).json() == entries[2]
        assert (await client.get("/policy/v1/ledger/entries/99")).json()["code"] == "no-such-entry"
        here = (await client.get("/policy/v1/ledger/verify")).json()
        assert (here["holds"], here["entries"], here["head"]) == (True, 7, entries[-1]["hash"])
        file = await exported(client, tmp_path / "ledger.jsonl")
        kept = tmp_path / "head.json"
        kept.write_bytes((await client.get("/policy/v1/ledger/head")).content)
    assert verdict(installation, file, "--head", str(kept))[0] == 0
    lines = file.read_bytes().splitlines()
    assert json.loads(lines[-1])["head"]["signatures"][0]["keyid"] == "policy"
    file.write_bytes(b"\n".join(lines[:3] + lines[4:]))
    code, said = verdict(installation, file)
    assert (code, "entry 4 is bad" in said) == (1, True), said


async def test_nobody_edits_the_ledger_unnoticed(installation: Installation, tmp_path: Path) -> None:
    key = installation.key("user:aud", "auditor")
    await installation.start("policy")
    for number in range(6):
        await installation.publish(changed("a", number))
    async with installation.client("policy", key) as client:
        await recorded(client, 6)
        own = await asyncpg.connect(installation.dsn("policy"))
        await own.execute("SELECT set_config('mintmark.workspace', '*', false)")
        for statement in (
            "UPDATE policy.ledger SET source = 'x'",
            "DELETE FROM policy.ledger",
            "TRUNCATE policy.ledger",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await own.execute(statement)
        await own.execute("GRANT UPDATE, DELETE, TRUNCATE ON policy.ledger TO CURRENT_USER")
        for statement in (
            "UPDATE policy.ledger SET source = 'x'",
            "DELETE FROM policy.ledger",
            "TRUNCATE policy.ledger",
        ):
            with pytest.raises(asyncpg.RestrictViolationError):
                await own.execute(statement)
        await own.close()

        admin = await asyncpg.connect(installation.backing.dsn(installation.database))
        await admin.execute("ALTER TABLE policy.ledger DISABLE TRIGGER append_only")
        await admin.execute("UPDATE policy.ledger SET key = 'mm:model/other' WHERE index = 4")
        found = (await client.get("/policy/v1/ledger/verify")).json()
        assert (found["holds"], found["first_bad"]) == (False, 4)
        code, said = verdict(installation, await exported(client, tmp_path / "edited.jsonl"))
        assert (code, "entry 4 is bad" in said) == (1, True), said
        await admin.execute("UPDATE policy.ledger SET key = 'mm:model/a' WHERE index = 4")
        assert (await client.get("/policy/v1/ledger/verify")).json()["holds"]
        await admin.execute("DELETE FROM policy.ledger WHERE index >= 5")
        found = (await client.get("/policy/v1/ledger/verify")).json()
        assert (found["holds"], found["first_bad"]) == (False, 5)
        code, said = verdict(installation, await exported(client, tmp_path / "cut.jsonl"))
        assert (code, "entry 5 is bad" in said) == (1, True), said
        await admin.close()


async def test_an_event_that_is_stale_for_others_is_recorded_all_the_same(installation: Installation) -> None:
    key = installation.key("user:aud", "auditor")
    await installation.start("policy")
    for sequence in (7, 6, 8):
        await installation.publish(changed("a"), event_id=f"n{sequence}", sequence=sequence)
    async with installation.client("policy", key) as client:
        assert [entry["id"] for entry in await recorded(client, 3)] == ["n7", "n6", "n8"]


async def test_each_workspace_has_a_chain_of_its_own(installation: Installation) -> None:
    mine, theirs = installation.key("user:aud", "auditor"), installation.key("user:aud", "auditor", workspace="other")
    reader = installation.key("user:ada", "publisher")
    await installation.start("policy")
    for number in range(3):
        await installation.publish(changed("a", number))
        await installation.publish(changed("b", number), workspace="other")
    async with installation.client("policy", mine) as one, installation.client("policy", theirs) as other:
        assert {entry["key"] for entry in await recorded(one, 3)} == {"mm:model/a"}
        entries = await recorded(other, 3)
        assert [(entry["key"], entry["index"]) for entry in entries] == [("mm:model/b", n) for n in (1, 2, 3)]
        for client in (one, other):
            assert (await client.get("/policy/v1/ledger/verify")).json()["entries"] == 3
    async with installation.client("policy", reader) as client:
        assert (await client.get("/policy/v1/ledger")).status_code == 403


async def test_what_is_no_event_is_recorded_too_and_stops_nobody(installation: Installation) -> None:
    key = installation.key("user:aud", "auditor")
    await installation.start("policy")
    structured = [("content-type", b"application/cloudevents+json")]
    odd = [
        {"id": "\ud800", "source": "x", "type": "t", "data": {}},
        {"id": "1", "source": "x", "type": "t", "data": {"half a pair": "\ud800", "large": 10**30}},
        {
            "id": "2",
            "source": "x",
            "type": "t",
            "data": 1,
            "correlationid": {"a": 1},
            "traceparent": "\udfff",
            "proof": [],
        },
        {"id": "3", "source": "x", "type": "t", "data": 1, "workspace": "*"},
        {"id": "4", "source": "x", "type": "t", "data": 1, "time": "0001-01-01T00:00:00+14:00"},
        {"id": "5", "source": "x", "type": "t", "data": 1, "time": "2026-01-01T00:00:00", "sequence": "9" * 18},
    ]
    for document in odd:
        body = json.dumps({"specversion": "1.0", **document}).encode()
        await installation.send_raw("asset.changed", body, structured, b"mm:model/a")
    nul = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"6"),
        ("ce_source", b"x"),
        ("ce_type", b"t"),
        ("ce_correlationid", b"\x00"),
    ]
    await installation.send_raw("asset.changed", b"{}", nul, b"mm:model/a")
    await installation.publish(changed("a"), event_id="the last")
    async with installation.client("policy", key) as client:
        entries = await recorded(client, len(odd) + 2)
        assert entries[-1]["id"] == "the last"
        assert (await client.get("/policy/v1/ledger/verify")).json()["holds"]
