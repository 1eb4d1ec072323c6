"""A folder of model files. `credit.lgb` may have `credit.yaml` (or `.yml`, `.json`) beside it, which says more."""

from __future__ import annotations

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

LAST = 2**31
SIDECARS = (".yaml", ".yml", ".json")
KNOWN = {
    "name", "version", "description", "tags", "metrics", "licence", "license", "task", "author", "registered_at",
    "aliases", "stage", "base_model", "datasets", "run_id",
}  # fmt: skip


class Folder:
    """Each model file is a version of the asset that it is named after."""

    kind = "folder"

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        if not path.is_dir():
            raise ValueError(f"{path} is no folder")
        self._path = path
        self.name = name or path.resolve().name
        self._count: int | None = None

    def count(self) -> int | None:
        return self._count

    def assets(self, wanted: Wanted) -> Iterator[FoundAsset]:
        """By title; versions of one asset may lie in several files."""
        found: dict[str, FoundAsset] = {}
        for path in local.below(self._path):
            if path.suffix in SIDECARS or local.format_of(path) is None:
                continue
            said = self._said(path)
            title = (
                text_of(said.get("name"), bounded.MOST_BYTES)
                or path.relative_to(self._path.resolve()).with_suffix("").as_posix()
            )
            if not wanted(title):
                continue
            version = self._version(path, said)
            asset = found.setdefault(title, FoundAsset({"id": f"asset:{title}", "kind": "model", "title": title}))
            asset.versions.append(version)
            number = version.document.get("number")
            aliases = texts_of(said.get("aliases"))
            if aliases and number is None:
                raise SourceFailed(f"{path.name}: aliases need a `version` to point at")
            asset.document.setdefault("aliases", {}).update(dict.fromkeys(aliases, number))
        self._count = len(found)
        for title in sorted(found):
            # Those without a number take the next one, and so come after those that have theirs.
            found[title].versions.sort(key=lambda version: version.document.get("number") or LAST)
            yield found[title]

    def _said(self, path: Path) -> dict[str, Any]:
        for beside in (path.with_suffix(path.suffix + end) for end in SIDECARS):
            if beside.is_file():
                return bounded.document(beside)
        for beside in (path.with_suffix(end) for end in SIDECARS):
            if beside.is_file():
                return bounded.document(beside)
        return {}

    def _version(self, path: Path, said: dict[str, Any]) -> FoundVersion:
        content = local.content_of([(path.name, path)])
        digest = content["files"][0]["digest"]
        if "artefact" in content:
            del content["files"]  # bytes alone: the very version that submitting them makes
        where, number = path.relative_to(self._path.resolve()).as_posix(), said.get("version")
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise SourceFailed(f"{where}: version {number!r} is no number from 1")
        tags, metrics = said.get("tags"), said.get("metrics")
        if not isinstance(tags, dict):
            tags = dict.fromkeys(texts_of(tags), "true")
        numbers = {key: number_of(value) for key, value in metrics.items()} if isinstance(metrics, dict) else {}
        tags |= {key: one for key, one in said.items() if key not in KNOWN and isinstance(one, str | int | float)}
        mark = fingerprint(digest, number)
        document = without_nothing(
            {
                # What is named by its bytes comes once, wherever it is moved to; other bytes are another version.
                "id": f"file:{where}@{mark}" if number is None else f"file:{where}#{number}",
                "fingerprint": mark,
                "number": number,
                "registered_at": text_of(said.get("registered_at")),
                "author": text_of(said.get("author"), 200),
                "description": text_of(said.get("description"), 10_000),
                "tags": {str(key): str(value) for key, value in tags.items()},
                "metrics": {key: number for key, number in numbers.items() if number is not None},
                "licence": text_of(said.get("licence") or said.get("license"), 200),
                "task": text_of(said.get("task"), 60),
                "stage": text_of(said.get("stage")),
                "base": texts_of(said.get("base_model")),
                "datasets": texts_of(said.get("datasets")),
                "run_id": text_of(said.get("run_id")),
            }
        )

        return FoundVersion(document | content, local.sending([(path.name, path)]))
