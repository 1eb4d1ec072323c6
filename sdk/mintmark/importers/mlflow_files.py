"""Files of runs and models, where an MLflow server hands them out itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from mintmark.importers import files
from mintmark.importers.found import SourceFailed, Upload
from mintmark.importers.remote import Remote, listed

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MOST_FILE_BYTES = 64 * 1024**3
DEEPEST = 20

Sent = tuple[list[dict[str, Any]], dict[str, str]]
"""Files with digests and sizes, and the formats of those that have one."""


class Files:
    """Each folder is read once, whoever asks for it: versions of a model often share one."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._sent: dict[str, Sent] = {}

    def sent(self, where: str, upload: Upload) -> Sent:
        """What lies at an address; nothing where the server does not hand it out. Raises SourceFailed."""
        parts = urlsplit(where)
        root = parts.path.strip("/")
        if parts.scheme != "mlflow-artifacts" or not root:
            return [], {}
        if root not in self._sent:
            found: list[dict[str, Any]] = []
            formats: dict[str, str] = {}
            for path in self._below(root, "", DEEPEST):
                with self._remote.download(f"{ARTIFACTS}/{quote(f'{root}/{path}')}", MOST_FILE_BYTES) as file:
                    form = files.format_of(path, _head(file))
                    digest, size = upload(file)
                found.append({"path": path, "digest": digest, "size": size})
                if form is not None:
                    formats[path] = form
            self._sent[root] = (found, formats)
        return self._sent[root]

    def _below(self, root: str, folder: str, depth: int) -> Iterator[str]:
        """Every file of a folder and of those in it, by its path from `root`."""
        if depth == 0:
            raise SourceFailed(f"folders are nested deeper than {DEEPEST}")
        answer = self._remote.ask("GET", ARTIFACTS, params={"path": f"{root}/{folder}".rstrip("/")})
        for count, entry in enumerate(listed(answer, "files")):
            if count >= files.MOST_FILES:
                raise SourceFailed(f"there are more than {files.MOST_FILES} files in one folder")
            name = files.safe_path(str(entry.get("path", "")))
            path = f"{folder}/{name}" if folder else name
            if entry.get("is_dir"):
                yield from self._below(root, path, depth - 1)
            else:
                yield path


def pairs(of: dict[str, Any]) -> dict[str, str]:
    """`[{"key": …, "value": …}]` as a mapping."""
    return {str(pair["key"]): str(pair.get("value", "")) for pair in listed(of, "tags") if pair.get("key")}


def _head(file: BinaryIO) -> bytes:
    head = file.read(files.HEAD)
    file.seek(0)
    return head
