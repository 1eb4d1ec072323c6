"""What can be set about the registry: MINTMARK_REGISTRY_*."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.settings import ServiceSettings


def _listed(value: object) -> object:
    """`a, b` as a list; an empty text as none."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed)]


class Settings(ServiceSettings):
    """Nothing is fetched from anywhere that is not listed here."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_REGISTRY_", frozen=True)

    source_roots: Folders = Field(default=(), description="folders that file:// may name files under, comma separated")
    source_buckets: Listed = Field(
        default=(), description="bucket or bucket/prefix that s3:// may name, comma separated"
    )
    source_hosts: Listed = Field(default=(), description="hosts that https:// may name, comma separated")
    fetch_timeout_s: float = Field(default=600, gt=0)
    require_proof: bool = Field(default=False, description="refuse submissions whose author nobody has proven")
