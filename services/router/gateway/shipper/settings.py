"""What the shipper reads from its environment, once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class ShipperSettings(ServiceSettings):
    """MINTMARK_SHIPPER_*, the router's DSN and the gateways' folder. All times in seconds."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_SHIPPER_", frozen=True, populate_by_name=True)

    dsn: str = Field(validation_alias="MINTMARK_ROUTER_DSN")
    folder: Path | None = Field(default=None, validation_alias="MINTMARK_GATEWAY_FOLDER")
    host: str = "127.0.0.1"
    port: int = Field(default=8712, ge=0, le=65535)
    """Health and metrics."""
    poll_s: float = Field(default=0.05, gt=0)
    drain_s: float = Field(default=20.0, gt=0)
    """How long after SIGTERM gateways have to end and their rows to be taken."""

    @property
    def spool_folder(self) -> Path:
        return (self.folder or self.platform.data / "gateway") / "spool"
