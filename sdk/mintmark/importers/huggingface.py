"""A model as Hugging Face keeps it: a folder, or its card alone (README.md with YAML front matter). No network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mintmark.importers import bounded, local
from mintmark.importers.bounded import number_of, text_of, texts_of
from mintmark.importers.found import (
    FoundAsset,
    FoundVersion,
    SourceFailed,
    Wanted,
    fingerprint,
    without_nothing,
)

CARD = "README.md"
FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
MOST_METRICS = 500


class HuggingFace:
    """One model. Its version is named by its files and by what the card says that a version cannot change."""

    kind = "huggingface"

    def __init__(self, path: Path, *, title: str | None = None, name: str | None = None) -> None:
        self._folder = path if path.is_dir() else None
        self._card = path / CARD if path.is_dir() else path
        if not self._card.is_file():
            raise ValueError(f"{path} is no model card, and no folder with a {CARD}")
        self._title = title
        self._name = path.resolve().name if path.is_dir() else path.resolve().stem
        self.name = name or self._name

    def count(self) -> int | None:
        return 1

    def assets(self, wanted: Wanted) -> Iterator[FoundAsset]:
        said, body = read_card(self._card)
        index = _model_index(said)
        title = self._title or next((name for one in index if (name := text_of(one.get("name")))), self._name)
        if not wanted(title):
            return
        asset = {"id": f"model:{title}", "kind": "model", "title": title, "description": body.strip()[:10_000]}
        yield FoundAsset(without_nothing(asset), [self._version(title, said, index)])

    def _version(self, title: str, said: dict[str, Any], index: list[dict[str, Any]]) -> FoundVersion:
        paths: list[tuple[str, Path]] = []
        if self._folder is not None:
            root = self._folder.resolve()
            paths = [(path.relative_to(root).as_posix(), path) for path in local.below(root)]
            paths = [(name, path) for name, path in paths if name != CARD]
        licence = text_of(said.get("license"), 200)
        if licence == "other":
            licence = text_of(said.get("license_name"), 200) or licence
        content = {
            "metrics": metrics_of(index),
            "licence": licence,
            "task": _task(text_of(said.get("pipeline_tag"), 60)),
            "base": texts_of(said.get("base_model")),
            "datasets": texts_of(said.get("datasets")),
        }
        bytes_of = local.content_of(paths)
        mark = fingerprint(content, bytes_of.get("files"))
        tags = dict.fromkeys((tag[:250] for tag in texts_of(said.get("tags"), 500)), "true")
        for key in ("library_name", "pipeline_tag"):
            if text := text_of(said.get(key)):
                tags[key] = text
        if languages := texts_of(said.get("language")):
            tags["language"] = ", ".join(languages)
        document = without_nothing({"id": f"version:{title}@{mark}", "fingerprint": mark, "tags": tags, **content})
        document["source"] = {"uri": f"huggingface:{title}"[:2000]}
        return FoundVersion(document | bytes_of, local.sending(paths) if paths else None)


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """What the front matter says, and the text below it. Raises SourceFailed."""
    text = bounded.read_text(path)
    match = FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    said = bounded.plain(bounded.from_yaml(match[1], path.name) or {})
    if not isinstance(said, dict):
        raise SourceFailed(f"the front matter of {path.name} is no mapping")
    return said, text[match.end() :]


def _model_index(said: dict[str, Any]) -> list[dict[str, Any]]:
    return _objects(said.get("model-index"))


def metrics_of(index: list[dict[str, Any]]) -> dict[str, float]:
    """`model-index` as numbers by name: `accuracy`, or `glue/test/accuracy` where the card says on what."""
    found: dict[str, float] = {}
    for result in (result for model in index for result in _objects(model.get("results"))):
        data = result.get("dataset")
        data = data if isinstance(data, dict) else {}
        where = text_of(data.get("type")) or text_of(data.get("name"))
        config = "/".join(text for key in ("config", "split") if (text := text_of(data.get(key))))
        for metric in _objects(result.get("metrics")):
            number = number_of(metric.get("value"))
            name = text_of(metric.get("type")) or text_of(metric.get("name"))
            if number is not None and name and len(found) < MOST_METRICS:
                found["/".join(part for part in (where, config, name) if part)[:250]] = number
    return found


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _task(pipeline_tag: str | None) -> str | None:
    """The registry's word for it, where it has one; theirs otherwise."""
    if pipeline_tag is None:
        return None
    ending = pipeline_tag.rpartition("-")[2]
    return ending if ending in ("classification", "regression", "forecasting") else pipeline_tag
