"""What the gateway reads from its environment, once."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """MINTMARK_GATEWAY_* and the router's DSN. All times in seconds, all sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_GATEWAY_", frozen=True, populate_by_name=True)

    dsn: str = Field(validation_alias="MINTMARK_ROUTER_DSN")
    host: str = "127.0.0.1"
    port: int = Field(default=8710, ge=0, le=65535)
    reuse_port: bool = False
    """Several gateway processes on one port (SO_REUSEPORT)."""

    upstream_timeout_s: float = Field(default=30.0, gt=0)
    upstream_connections: int = Field(default=128, ge=1)
    """Most connections to one model server; further requests wait for one within their timeout."""
    request_bytes: int = Field(default=16 << 20, ge=1024)
    response_bytes: int = Field(default=64 << 20, ge=1024)
    read_timeout_s: float = Field(default=30.0, gt=0)
    """From a request's first byte to its last; then 408."""
    idle_timeout_s: float = Field(default=75.0, gt=0)
    """A connection without a request; longer than the 60 s after which load balancers drop theirs."""
    row_connections: int = Field(default=2, ge=1)
    pending_rows: int = Field(default=20_000, ge=1)
    pending_row_bytes: int = Field(default=128 << 20, ge=1024)
    poll_s: float = Field(default=1.0, gt=0)
    drain_s: float = Field(default=30.0, gt=0)
