"""What can be set about the registry: MINTMARK_REGISTRY_*."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, model_validator
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
    search_cache_bytes: int = Field(
        default=256 * 1024 * 1024, ge=1024, description="of the folded index that a process keeps in memory"
    )
    gateway_url: str | None = Field(default=None, description="where the gateway answers, for the groups below")
    gateway_key: SecretStr | None = Field(default=None, description="API key of the gateway for them")
    embeddings_group: str | None = Field(
        default=None, description="group whose model embeds what is searched by meaning, in place of the shipped one"
    )
    questions_group: str | None = Field(
        default=None, description="group whose model turns a question into a filter, in place of rules"
    )
    mapping_group: str | None = Field(
        default=None, description="group whose model maps what rules leave of a foreign document"
    )
    require_proof: bool = Field(default=False, description="refuse submissions whose author nobody has proven")
    openlineage_url: str | None = Field(
        default=None, description="where this installation's lineage is told, e.g. http://marquez:5000/api/v1/lineage"
    )
    openlineage_api_key: str | None = Field(default=None, repr=False, description="sent there as a Bearer")
    signing_key_file: Path | None = Field(
        default=None, description="signs receipts of retention (Ed25519, PEM); without one they are kept unsigned"
    )
    retention_look_s: float = Field(
        default=30, gt=0, description="how often datasets whose time is over are looked for"
    )
    retention_grace_s: float = Field(
        default=3600, ge=0, description="from a dataset's release to the removal of its bytes; longer than an upload"
    )

    @model_validator(mode="after")
    def _gateway_is_known(self) -> Settings:
        if (self.embeddings_group or self.questions_group or self.mapping_group) and not self.gateway_url:
            raise ValueError("embeddings_group, questions_group and mapping_group need gateway_url")
        return self
