"""Bytes by their SHA-256, in a folder or in S3: written once, verified whenever they are read."""

from shared.artefacts.opening import open_store
from shared.artefacts.store import ArtefactStore

__all__ = ["ArtefactStore", "open_store"]
