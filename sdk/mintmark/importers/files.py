"""Model files: which format their first bytes show, and which of several is the one that is served."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mintmark.importers.found import SourceFailed

SERVED = ("onnx", "lightgbm", "skops")
"""Formats that the registry takes as a model's artefact. Other files are kept beside the version."""

HEAD = 512
MOST_FILES = 2_000


def format_of(path: str, head: bytes) -> str | None:
    """The format that name and first bytes agree on."""
    suffix = path.rpartition(".")[2].lower()
    if head.startswith((b"tree\n", b"tree\r\n")) and suffix in ("lgb", "txt", "lightgbm", "model"):
        return "lightgbm"
    if suffix == "onnx" and head[:1] == b"\x08":
        return "onnx"
    if suffix == "skops" and head.startswith(b"PK\x03\x04"):
        return "skops"
    if suffix == "safetensors" and head[8:9] == b"{":
        return "safetensors"
    return None


def safe_path(path: str) -> str:
    """A path below the folder that it is said to be in. Raises SourceFailed for one that climbs out of it."""
    parts = re.split(r"[/\\]", path)
    if not path or path.startswith(("/", "\\")) or ".." in parts or "\x00" in path or re.match(r"[A-Za-z]:", path):
        raise SourceFailed(f"the path {path[:100]!r} leads out of its folder")
    return path


def as_content(files: Iterable[dict[str, Any]], formats: dict[str, str]) -> dict[str, Any]:
    """The part of a version that its files are: all of them, and the artefact where it is plain which one that is."""
    found = sorted(files, key=lambda file: str(file["path"]))
    if len(found) > MOST_FILES:
        raise SourceFailed(f"there are {len(found)} files; {MOST_FILES} is the most")
    served = [file for file in found if formats.get(file["path"]) in SERVED]
    content: dict[str, Any] = {"files": found} if found else {}
    if len({file["digest"] for file in served}) == 1:
        content["artefact"] = {"digest": served[0]["digest"], "format": formats[served[0]["path"]]}
    return content
