"""Files of a folder: found without leaving it, hashed as they stand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mintmark.importers import files
from mintmark.importers.found import SourceFailed, Upload

CHUNK = 1024 * 1024
LEFT_OUT = {".git", ".cache", "__pycache__", ".ipynb_checkpoints"}
DEEPEST = 20


def below(folder: Path) -> Iterator[Path]:
    """Regular files of a folder and of those in it, in order. A link counts where it leads to a file of the same
    folder, or to one of the download cache that the folder is a snapshot of. Raises SourceFailed."""
    root = folder.resolve()
    roots = [root]
    if root.parent.name == "snapshots":
        roots.append(root.parent.parent / "blobs")
    count = 0
    for here, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        if len(Path(here).relative_to(root).parts) >= DEEPEST:
            folders[:] = []
        for name in sorted(names):
            path = Path(here) / name
            real = path.resolve()
            if not real.is_file() or not any(real.is_relative_to(one) for one in roots):
                continue
            count += 1
            if count > files.MOST_FILES:
                raise SourceFailed(f"{folder} holds more than {files.MOST_FILES} files")
            yield path


def digest_of(path: Path) -> tuple[str, int]:
    """SHA-256 and size."""
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
            size += len(chunk)
    return f"sha256:{sha.hexdigest()}", size


def format_of(path: Path) -> str | None:
    with path.open("rb") as file:
        return files.format_of(path.name, file.read(files.HEAD))


def content_of(paths: list[tuple[str, Path]]) -> dict[str, Any]:
    """The part of a version that its files (their name in the version, where they are) make."""
    found = []
    for name, path in paths:
        digest, size = digest_of(path)
        found.append({"path": name, "digest": digest, "size": size})
    formats = {name: form for name, path in paths if (form := format_of(path)) is not None}
    return files.as_content(found, formats)


def sending(paths: list[tuple[str, Path]]) -> Callable[[Upload], dict[str, Any]]:
    """Sends them when the version is made; says nothing that was not said before."""

    def fetch(upload: Upload) -> dict[str, Any]:
        for _, path in paths:
            with path.open("rb") as file:
                upload(file)
        return {}

    return fetch
