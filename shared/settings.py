"""Settings that every service has, read once from the environment and frozen."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.bus.transport import KafkaSettings
from shared.identity.tokens import OidcSettings


class PlatformSettings(BaseSettings):
    """MINTMARK_*: what the whole installation shares."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_", frozen=True)

    data: Path = Path(".mintmark")
    url: str = "http://127.0.0.1:8700"
    gateway_url: str = "http://127.0.0.1:8710"
    artefacts: str = Field(default="", description="file:///folder or s3://bucket/prefix; default <data>/artefacts")
    s3_endpoint: str | None = None
    keys_file: Path | None = None
    trust_file: Path | None = None
    policies: Path | None = Field(default=None, description="folder of Cedar policies; default the built-in ones")
    log_level: str = "INFO"
    migrate_on_start: bool = True
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    max_upload_bytes: int = Field(default=5 * 1024**3, ge=1024)


class ServiceSettings(BaseSettings):
    """MINTMARK_<SERVICE>_*: each service's own class names its prefix."""

    model_config = SettingsConfigDict(frozen=True)

    dsn: str
    pool_size: int = Field(default=12, ge=3, description="connections of this service; its events use all but two")
    platform: PlatformSettings = Field(default_factory=PlatformSettings)
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    oidc: OidcSettings = Field(default_factory=OidcSettings)
