"""Only jars with the locked bytes are used, and an interrupted download goes on where it stopped."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.local import jars
from deploy.local.errors import LocalError
from deploy.local.jars import LockedJar, ensure_jars, kafka_cache, locked_jars, missing_jars

CONTENT = {f"part-{number}": bytes([number]) * 50_000 for number in range(4)}


@dataclass
class Mirror:
    """A Maven repository on this machine that can lose connections, damage files or be empty."""

    address: str = ""
    served: Counter[str] = field(default_factory=Counter)
    cut_once: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    mirror = Mirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.split("/")[-3]
            if not self.path.endswith(".jar") or name not in CONTENT or name in mirror.absent:
                self.send_error(404)
                return
            mirror.served[name] += 1
            body = CONTENT[name] if name not in mirror.damaged else CONTENT[name][::-1] + b"!"
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if name in mirror.cut_once:
                mirror.cut_once.remove(name)
                body = body[: len(body) // 2]
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    mirror.address = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "jgo.conf").write_text(f"[repositories]\ncentral = {mirror.address}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(tmp_path / "jgo.conf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    locked = tuple(LockedJar("org.example", name, "1.0", _sha256(body)) for name, body in CONTENT.items())
    monkeypatch.setattr(jars, "locked_jars", lambda: locked)
    yield mirror
    server.shutdown()
    server.server_close()


def _sha256(body: bytes) -> str:
    import hashlib

    return hashlib.sha256(body).hexdigest()


def test_jars_come_from_the_users_own_mirror_and_are_fetched_once(mirror: Mirror, tmp_path: Path) -> None:
    first = ensure_jars(tmp_path / "cache")
    assert {path.stem.removesuffix("-1.0"): path.read_bytes() for path in first.folder.iterdir()} == CONTENT
    ensure_jars(tmp_path / "cache")
    assert set(mirror.served.values()) == {1}


def test_a_lost_connection_is_tried_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut_once = {"part-2"}
    ensure_jars(tmp_path / "cache")
    assert missing_jars(tmp_path / "cache") == []
    assert mirror.served["part-2"] == 2


def test_a_half_finished_download_is_resumed(mirror: Mirror, tmp_path: Path) -> None:
    """Given one jar that could not be had, when it is there again, then only that one is fetched."""
    mirror.absent = {"part-3"}
    with pytest.raises(LocalError, match=r"part-3-1\.0\.jar could not be downloaded .*jars that have arrived are kept"):
        ensure_jars(tmp_path / "cache")
    assert [jar.artifact for jar in missing_jars(tmp_path / "cache")] == ["part-3"]

    mirror.absent = set()
    mirror.served.clear()
    ensure_jars(tmp_path / "cache")
    assert mirror.served == {"part-3": 1}


def test_a_half_file_of_a_killed_download_is_never_used(mirror: Mirror, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    half = kafka_cache(cache) / "partial" / "org" / "example" / "part-1" / "1.0" / "part-1-1.0.jar"
    half.parent.mkdir(parents=True)
    half.write_bytes(CONTENT["part-1"][:100])
    ensure_jars(cache)
    assert missing_jars(cache) == []
    assert not half.exists()


def test_bytes_that_are_not_the_locked_ones_are_refused(mirror: Mirror, tmp_path: Path) -> None:
    mirror.damaged = {"part-0"}
    with pytest.raises(LocalError, match="checksum is not the locked one"):
        ensure_jars(tmp_path / "cache")
    assert not (kafka_cache(tmp_path / "cache") / "jars" / "part-0-1.0.jar").exists()


def test_a_jar_that_was_changed_later_is_noticed_and_replaced(mirror: Mirror, tmp_path: Path) -> None:
    folder = ensure_jars(tmp_path / "cache").folder
    (folder / "part-1-1.0.jar").write_bytes(b"something else")
    assert [jar.artifact for jar in missing_jars(tmp_path / "cache")] == ["part-1"]
    ensure_jars(tmp_path / "cache")
    assert (folder / "part-1-1.0.jar").read_bytes() == CONTENT["part-1"]


def test_no_network_is_one_sentence_with_the_fix(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jgo.conf").write_text("[repositories]\ncentral = http://127.0.0.1:9\n")
    with pytest.raises(
        LocalError, match=r"could not be downloaded .*check the network, or name a Maven mirror"
    ) as raised:
        ensure_jars(tmp_path / "cache")
    assert "\n" not in str(raised.value)


def test_the_committed_lock_names_no_address_and_pins_every_jar() -> None:
    assert "://" not in jars.LOCK_FILE.read_text()
    assert all(len(jar.sha256) == 64 for jar in locked_jars())
    assert {"kafka_2.13", "slf4j-simple"} <= {jar.artifact for jar in locked_jars()}
