"""The offline verifier names the first bad entry, however a ledger was tampered with."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mintmark.cli.ledger import app
from typer.testing import CliRunner

from services.policy import verifier
from shared.identity import dsse

KEY = Ed25519PrivateKey.generate()
KEYS = {"policy": KEY.public_key().public_bytes_raw()}
Entries = list[dict[str, Any]]


def entry(index: int, previous: str, data: bytes, **more: Any) -> dict[str, Any]:
    fields = {
        "index": index,
        "at": "2026-11-20T10:00:00.000000Z",
        "workspace": "default",
        "id": f"e{index}",
        "source": "test",
        "type": "asset.changed.v1",
        "key": "mm:model/x",
        "time": None,
        "topic": "asset.changed",
        "partition": 0,
        "offset": index,
        "trace_id": None,
        "correlation_id": f"c{index}",
        "causation_id": None,
        "proof": None,
        "data_digest": "sha256:" + hashlib.sha256(data).hexdigest(),
        "previous": previous,
        **verifier.data_fields(data),
        **more,
    }
    return {**fields, "hash": verifier.entry_hash(fields)}


def chain(count: int = 9, first: Entries | None = None, mark: str = "") -> Entries:
    """Entries 1 to `count`, going on after `first`."""
    entries = list(first or [])
    while len(entries) < count:
        previous = entries[-1]["hash"] if entries else verifier.NOTHING
        entries.append(entry(len(entries) + 1, previous, json.dumps({"n": len(entries), "mark": mark}).encode()))
    return entries


def head_of(entries: Entries, key: Ed25519PrivateKey = KEY, **more: Any) -> dict[str, Any]:
    said = {"type": "ledger-head", "workspace": "default", "index": len(entries), "hash": entries[-1]["hash"], **more}
    return dsse.sign(json.dumps(said).encode(), verifier.HEAD_TYPE, key, "policy").model_dump()


def lines(entries: Entries, head: dict[str, Any] | None) -> list[bytes]:
    return [json.dumps(document).encode() for document in [*entries, *([{"head": head}] if head else [])]]


def edited(entries: Entries) -> Entries:
    entries[4] = entries[4] | {"source": "someone else"}
    return entries


def with_other_data(entries: Entries) -> Entries:
    entries[4] = entries[4] | {"data": "{}"}
    return entries


def without_data(entries: Entries) -> Entries:
    entries[4] = {name: value for name, value in entries[4].items() if name != "data"}
    return entries


def edited_and_rehashed(entries: Entries) -> Entries:
    entries[4] = entry(5, entries[3]["hash"], b'{"forged": true}')
    return entries


def rewritten_from_there(entries: Entries) -> Entries:
    return chain(9, entries[:4], "forged")


def deleted(entries: Entries) -> Entries:
    return entries[:4] + entries[5:]


def deleted_and_renumbered(entries: Entries) -> Entries:
    kept = entries[:4]
    for old in entries[5:]:
        kept.append(entry(len(kept) + 1, kept[-1]["hash"], old["data"].encode()))
    return kept


def swapped(entries: Entries) -> Entries:
    entries[4], entries[5] = entries[5], entries[4]
    return entries


def doubled(entries: Entries) -> Entries:
    return [*entries[:5], entry(5, entries[3]["hash"], b'{"fork": true}'), *entries[5:]]


def grafted(entries: Entries) -> Entries:
    """From entry 5 on, the branch of another history."""
    return entries[:4] + chain(9, mark="other history")[4:]


def of_another_workspace(entries: Entries) -> Entries:
    return [*entries[:4], entry(5, entries[3]["hash"], b"{}", workspace="other"), *entries[5:]]


def garbage(entries: Entries) -> Entries:
    entries[4] = ["what is this"]  # type: ignore[call-overload]
    return entries


def floating(entries: Entries) -> Entries:
    entries[4] = entries[4] | {"offset": 5.0}
    return entries


def cut_off(entries: Entries) -> Entries:
    return entries[:4]


def emptied(entries: Entries) -> Entries:
    return []


def grown(entries: Entries) -> Entries:
    return chain(12, entries)


@pytest.mark.parametrize(
    ("tamper", "index", "word"),
    [
        (edited, 5, "edited"),
        (with_other_data, 5, "data were edited"),
        (without_data, 5, "no data"),
        (edited_and_rehashed, 5, "replaced"),
        (rewritten_from_there, 9, "rewritten"),
        (deleted, 5, "missing"),
        (deleted_and_renumbered, 9, "cut off"),
        (swapped, 5, "moved"),
        (doubled, 5, "forks"),
        (grafted, 5, "forks"),
        (of_another_workspace, 5, "another ledger"),
        (garbage, 5, "not an entry"),
        (floating, 5, "whole number"),
        (cut_off, 5, "cut off"),
        (emptied, 1, "cut off"),
        (grown, 10, "behind the signed head"),
    ],
)
def test_tampering_is_named_with_its_index(tamper: Callable[[Entries], Entries], index: int, word: str) -> None:
    honest = chain()
    finding = verifier.verify(lines(tamper(chain()), head_of(honest)), KEYS)
    assert (finding.index, finding.holds) == (index, False)
    assert word in finding.reason


def test_an_honest_ledger_holds() -> None:
    finding = verifier.verify(lines(chain(), head_of(chain())), KEYS)
    assert finding.holds
    assert (finding.entries, finding.workspace) == (9, "default")


def test_heads_kept_elsewhere_show_what_even_the_signer_rewrote() -> None:
    honest = chain()
    forged = rewritten_from_there(chain())
    kept = [verifier.read_head(head_of(honest[:n]), KEYS) for n in (3, 6)]
    finding = verifier.verify(lines(forged, head_of(forged)), KEYS, kept)
    assert finding.index == 6
    assert "entries 4 to 6" in finding.reason
    shorter = verifier.verify(lines(honest[:5], head_of(honest[:5])), KEYS, kept)
    assert (shorter.index, "cut off" in shorter.reason) == (6, True)


def test_a_head_must_be_signed_by_the_policy_service() -> None:
    entries = chain()
    stranger = Ed25519PrivateKey.generate()
    for head in (
        head_of(entries, stranger),
        {**head_of(entries), "signatures": []},
        {**head_of(entries), "payload": base64.b64encode(b'{"type": "ledger-head"}').decode()},
        {**head_of(entries), "payloadType": "application/vnd.mintmark.approval+json"},
        {"payload": 7},
    ):
        finding = verifier.verify(lines(entries, head), KEYS)
        assert not finding.holds
        assert "not to be believed" in finding.reason
    assert verifier.verify(lines(entries, None), KEYS).index == 10
    assert not verifier.verify([*lines(entries, head_of(entries)), b"{}"], KEYS).holds


def test_fields_cannot_be_shifted_into_each_other() -> None:
    assert (
        entry(1, verifier.NOTHING, b"", id="a", source="b:c")["hash"]
        != entry(1, verifier.NOTHING, b"", id="a1:b", source="c")["hash"]
    )
    assert entry(1, verifier.NOTHING, b"", proof="-")["hash"] != entry(1, verifier.NOTHING, b"", proof=None)["hash"]


def test_the_signature_check_agrees_with_a_library() -> None:
    for length in range(0, 200, 17):
        message = bytes(range(length))
        signature = KEY.sign(message)
        assert verifier.ed25519_holds(KEYS["policy"], message, signature)
        assert not verifier.ed25519_holds(KEYS["policy"], message + b".", signature)
        assert not verifier.ed25519_holds(KEYS["policy"], message, signature[:32] + bytes(32))
    assert not verifier.ed25519_holds(b"short", b"", bytes(64))
    assert not verifier.ed25519_holds(b"\xff" * 32, b"", bytes(64))


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, kept = tmp_path / "good.jsonl", tmp_path / "bad.jsonl", tmp_path / "head.json"
    good.write_bytes(b"\n".join(lines(chain(), head_of(chain()))))
    bad.write_bytes(b"\n".join(lines(deleted(chain()), head_of(chain()))))
    kept.write_text(json.dumps(head_of(chain(4))))
    key = base64.b64encode(KEYS["policy"]).decode()
    assert verifier.main([str(good), "--key", key, "--head", str(kept)]) == 0
    assert "its head is signed" in capsys.readouterr().out
    on_command_line = CliRunner().invoke(app, ["verify", str(bad), "--key", key])
    assert (on_command_line.exit_code, "entry 5 is bad" in on_command_line.output) == (1, True)
    assert CliRunner().invoke(app, ["verify", str(good), "--key", key]).exit_code == 0
    assert verifier.main([str(good)]) == 0
    assert "NOT checked" in capsys.readouterr().out
    assert verifier.main([str(bad), "--key", key]) == 1
    assert "entry 5 is bad" in capsys.readouterr().out
    assert verifier.main([str(tmp_path / "none.jsonl")]) == 2
    assert verifier.main([str(good), "--key", "?"]) == 2
    assert verifier.main([str(good), "--head", str(good)]) == 2
