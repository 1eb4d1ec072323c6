"""Readers of other registries, on what is broken, endless or made to break them; and what a change is a change of."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mintmark.importers import bounded, files, local
from mintmark.importers.folder import Folder
from mintmark.importers.found import SourceFailed
from mintmark.importers.huggingface import HuggingFace, metrics_of, read_card
from mintmark.importers.langfuse import Langfuse
from mintmark.importers.mlflow import Mlflow
from mintmark.importers.remote import plain_address

from services.registry.importers.merging import Difference, differences, mark, marks
from shared.ids import sha256

Answer = tuple[int, bytes]


def everything(_: str) -> bool:
    return True


@contextmanager
def answering(answer: Callable[[str, dict[str, list[str]]], Answer]) -> Iterator[str]:
    """A server that says what the test wants it to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, body = answer(parts.path, parse_qs(parts.query))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def said(document: Any) -> Answer:
    return 200, json.dumps(document).encode()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, b"<html>welcome</html>"), "no JSON"),
        ((200, b"[1, 2]"), "not with an object"),
        ((200, b"[" * 100_000), "no JSON"),
        ((200, b'{"registered_models": "many"}'), "not a list of objects"),
        ((200, b'{"registered_models": [1]}'), "not a list of objects"),
        ((500, b"oops"), "answers 500"),
        ((302, b""), "answers 302"),
        ((401, b'{"error_code": "UNAUTHENTICATED"}'), "answers 401"),
    ],
)
def test_a_server_that_answers_garbage_is_named(answer: Answer, reason: str) -> None:
    with answering(lambda path, query: answer) as url, pytest.raises(SourceFailed, match=reason):
        list(Mlflow(url).assets(everything))


def test_a_server_that_is_silent_is_not_waited_for() -> None:
    def silent(path: str, query: dict[str, list[str]]) -> Answer:
        time.sleep(0.5)
        return said({})

    with answering(silent) as url, pytest.raises(SourceFailed, match="does not answer"):
        list(Mlflow(url, timeout_s=0.1).assets(everything))


@pytest.mark.parametrize("fresh", [True, False], ids=["a new token each", "the same token"])
def test_a_server_that_pages_for_ever_is_left(fresh: bool) -> None:
    asked: list[int] = []

    def endless(path: str, query: dict[str, list[str]]) -> Answer:
        asked.append(1)
        model = [] if fresh else [{"name": "a"}]
        return said({"registered_models": model, "next_page_token": str(len(asked) if fresh else 1)})

    with answering(endless) as url, pytest.raises(SourceFailed, match="pages for ever"):
        list(Mlflow(url).assets(everything))
    assert len(asked) < 10


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..\\b", "C:\\b", "a\x00b", ""])
def test_a_file_that_climbs_out_of_its_folder_is_refused(name: str) -> None:
    version = {"name": "m", "version": "1", "source": "mlflow-artifacts:/1/m", "creation_timestamp": 1}

    def answer(path: str, query: dict[str, list[str]]) -> Answer:
        if path.endswith("registered-models/search"):
            return said({"registered_models": [{"name": "m"}]} if "filter" not in query else {})
        if path.endswith("model-versions/search"):
            return said({"model_versions": [version]} if "filter" not in query else {})
        if path.endswith("get-download-uri"):
            return said({"artifact_uri": "mlflow-artifacts:/1/m"})
        return said({"files": [{"path": name, "is_dir": False}]})

    with answering(answer) as url:
        (found,) = Mlflow(url).assets(everything)
        fetch = found.versions[0].fetch
        assert fetch is not None
        with pytest.raises(SourceFailed, match="leads out of its folder"):
            fetch(lambda file: pytest.fail("nothing is sent"))
    with pytest.raises(SourceFailed):
        files.safe_path(name)


def test_folders_in_folders_without_end_are_left() -> None:
    version = {"name": "m", "version": "1", "source": "mlflow-artifacts:/1/m"}

    def answer(path: str, query: dict[str, list[str]]) -> Answer:
        if path.endswith("search"):
            key, found = ("registered_models", {"name": "m"}) if "registered" in path else ("model_versions", version)
            return said({key: [found]} if "filter" not in query else {})
        if path.endswith("get-download-uri"):
            return said({"artifact_uri": "mlflow-artifacts:/1/m"})
        return said({"files": [{"path": "again", "is_dir": True}]})

    with answering(answer) as url:
        (found,) = Mlflow(url).assets(everything)
        assert found.versions[0].fetch is not None
        with pytest.raises(SourceFailed, match="nested deeper"):
            found.versions[0].fetch(lambda file: ("", 0))


def test_a_source_is_known_by_an_address_without_its_password() -> None:
    assert plain_address("https://ada:secret@mlflow.internal:5000/x/?token=1") == "https://mlflow.internal:5000/x"
    with pytest.raises(ValueError, match="no"):
        plain_address("file:///etc/passwd")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"b{n}: &b{n} [*a,*a,*a,*a,*a,*a,*a,*a]\n" for n in range(9))


@pytest.mark.parametrize(
    ("front", "reason"),
    [
        (BOMB, "alias"),
        ("a: " + "[" * 5000 + "]" * 5000, "deeper than"),
        ("a: [" + "1," * 30_000 + "]", "more than"),
        ("a: !!python/object/apply:os.system ['true']", "no YAML"),
        ("a: [", "no YAML"),
        ("a: !!bool foo", "no YAML"),
        ("a: !!int ''", "no YAML"),
        ("a: !!timestamp foo", "no YAML"),
        ("- a\n- b", "no mapping"),
        ("a: " + "9" * 5000, "no YAML"),
        ("a: " + "x" * (1024 * 1024), "more than 1048576 bytes"),
    ],
)
def test_a_card_that_is_made_to_break_its_reader_is_refused(tmp_path: Path, front: str, reason: str) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"---\n{front}\n---\n# A model\n")
    with pytest.raises(SourceFailed, match=reason):
        read_card(card)


def test_a_card_says_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: llama3.1\nbase_model: [org/base, org/base]\ndatasets: imdb\n"
        "tags: [text, 2024-01-01, '']\npipeline_tag: text-classification\nlanguage: [en, de]\nmodel-index:\n"
        "- name: org/sentiment ☃\n  results:\n  - dataset: {type: glue, split: test}\n    metrics:\n"
        "    - {type: accuracy, value: 0.91}\n    - {type: f1, value: .inf}\n    - {type: loss, value: '0.5'}\n"
        "    - 7\n  - nonsense\n---\n# Sentiment\nIt reads reviews.\n"
    )
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (asset,) = HuggingFace(tmp_path).assets(everything)
    assert asset.title == "org/sentiment ☃" and asset.document["description"].startswith("# Sentiment")
    (version,) = asset.versions
    document = version.document
    assert document["licence"] == "llama3.1" and document["base"] == ["org/base"] and document["datasets"] == ["imdb"]
    assert document["metrics"] == {"glue/test/accuracy": 0.91, "glue/test/loss": 0.5}
    assert document["task"] == "classification" and document["tags"]["language"] == "en, de"
    weights = b"\x02\0\0\0\0\0\0\0{}"
    assert document["files"] == [{"path": "model.safetensors", "digest": sha256(weights), "size": 10}]
    sent: list[bytes] = []
    assert version.fetch is not None
    version.fetch(lambda file: (str(sent.append(file.read())), 0))
    assert sent == [weights]
    before = document["fingerprint"]
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{ ")
    assert next(HuggingFace(tmp_path).assets(everything)).versions[0].document["fingerprint"] != before
    assert metrics_of([{"results": "none"}, {}]) == {}


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    secret = tmp_path / "secret.onnx"
    secret.write_bytes(b"\x08\x07")
    cache = tmp_path / "models--org"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "1").mkdir(parents=True)
    (cache / "blobs" / "abc").write_bytes(b"\x08\x07")
    (cache / "snapshots" / "1" / "model.onnx").symlink_to(cache / "blobs" / "abc")
    (cache / "snapshots" / "1" / "stolen.onnx").symlink_to(secret)
    assert [path.name for path in local.below(cache / "snapshots" / "1")] == ["model.onnx"]


def test_a_sidecar_that_is_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07\x12\x00")
    (tmp_path / "m.yaml").write_text("version: zero")
    with pytest.raises(SourceFailed, match="no number from 1"):
        list(Folder(tmp_path).assets(everything))
    (tmp_path / "m.yaml").write_text("aliases: champion")
    with pytest.raises(SourceFailed, match="aliases need a `version`"):
        list(Folder(tmp_path).assets(everything))
    (tmp_path / "m.yaml").write_text("[]")
    with pytest.raises(SourceFailed, match="no object"):
        list(Folder(tmp_path).assets(everything))


def test_which_file_is_served_is_said_only_where_it_is_plain() -> None:
    many = [{"path": name, "digest": name, "size": 1} for name in ("a.onnx", "b.onnx", "c.txt")]
    assert files.as_content(many, {"a.onnx": "onnx"})["artefact"] == {"digest": "a.onnx", "format": "onnx"}
    assert "artefact" not in files.as_content(many, {"a.onnx": "onnx", "b.onnx": "onnx"})
    assert files.format_of("model.onnx", b"\x80\x04pickle") is None
    assert files.format_of("model.lgb", BytesIO(b"tree\nversion").read()) == "lightgbm"
    assert bounded.number_of(True) is None and bounded.number_of("1e999") is None


def test_prompts_come_after_those_that_they_include(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk")
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk")
    texts = {
        "a": "@@@langfusePrompt:name=z|version=1@@@ and @@@langfusePrompt:name=m|label=production@@@",
        "m": "@@@langfusePrompt:name=a|version=1@@@",  # a circle, as a source may have one
        "z": "end",
    }

    def answer(path: str, query: dict[str, list[str]]) -> Answer:
        name = path.rpartition("/")[2]
        if name == "prompts":
            found = [{"name": name, "versions": [1], "labels": [], "tags": []} for name in texts]
            return said({"data": found, "meta": {"page": 1, "totalPages": 1}})
        return said({"name": name, "version": 1, "type": "text", "prompt": texts[name], "labels": ["latest", "x"]})

    with answering(answer) as url:
        found = list(Langfuse(url).assets(everything))
    assert [asset.title for asset in found] == ["m", "z", "a"]
    assert {asset.title: asset.document["labels"] for asset in found} == {key: {"x": 1} for key in "amz"}


def test_a_change_is_told_from_a_change_of_ours() -> None:
    first = {"description": "one", "tag:a": "1", "tag:b": "2"}
    assert differences({}, first, {}) == [Difference(key, None, first[key]) for key in sorted(first)]
    last = marks({}, first, set())
    assert last["description"] == mark("one")
    assert differences(last, first, {"description": "ours", "tag:c": "3"}) == []  # only we changed something

    now = {"description": "two", "tag:b": "2", "stage": "production"}
    assert differences(last, now, first) == [
        Difference("description", "one", "two"),
        Difference("stage", None, "production"),
        Difference("tag:a", "1", None),
    ]
    (both,) = differences(last, {**first, "description": "two"}, {**first, "description": "ours"})
    assert both.why_not is not None
    kept = marks(last, {**first, "description": "two"}, {"description"})
    assert kept == last  # and so it is told again the next time
