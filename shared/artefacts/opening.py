"""The store that an installation uses."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shared.artefacts.folder import FolderStore
from shared.artefacts.store import ArtefactStore
from shared.errors import Invalid
from shared.settings import PlatformSettings


def open_store(settings: PlatformSettings) -> ArtefactStore:
    """The store that the settings name. Raises Invalid for an address of another kind."""
    address = settings.artefacts or (settings.data / "artefacts").absolute().as_uri()
    parts = urlsplit(address)
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        from shared.artefacts.s3 import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"), settings.s3_endpoint)
    raise Invalid(f"MINTMARK_ARTEFACTS is {address!r}; it takes file:///folder or s3://bucket/prefix")
