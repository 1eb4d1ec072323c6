"""What the gateway reads from its environment, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from services.router.gateway.spool.writer import Fsync, SpoolLimits
from shared.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """MINTMARK_GATEWAY_* and the router's DSN. All times in seconds, all sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_GATEWAY_", frozen=True, populate_by_name=True)

    dsn: str = Field(validation_alias="MINTMARK_ROUTER_DSN")
    host: str = "127.0.0.1"
    port: int = Field(default=8710, ge=0, le=65535)
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = 8711
    """The Open Inference Protocol over gRPC; 0 is any port, empty is none."""
    reuse_port: bool = False
    """Several gateway processes on one port (SO_REUSEPORT)."""

    upstream_timeout_s: float = Field(default=30.0, gt=0)
    provider_timeout_s: float = Field(default=300.0, gt=0)
    """Of an answer that is not streamed, and of a silence within a stream: large models think for minutes."""
    master_key_file: Path | None = Field(default=None, validation_alias="MINTMARK_ROUTER_MASTER_KEY_FILE")
    """What providers' keys were sealed with."""
    master_key_kms: str = Field(default="", validation_alias="MINTMARK_ROUTER_MASTER_KEY_KMS")
    provider_networks: str = Field(default="", validation_alias="MINTMARK_ROUTER_PROVIDER_NETWORKS")
    """Where providers may be beside the public internet, such as `10.1.0.0/16,127.0.0.1`."""
    upstream_connections: int = Field(default=128, ge=1)
    """Most connections to one model server; further requests wait for one within their timeout."""
    provider_connections: int = Field(default=4096, ge=1)
    """The same for a provider, where a stream holds its connection for minutes."""
    request_bytes: int = Field(default=16 << 20, ge=1024)
    response_bytes: int = Field(default=64 << 20, ge=1024)
    read_timeout_s: float = Field(default=30.0, gt=0)
    """From a request's first byte to its last; then 408."""
    idle_timeout_s: float = Field(default=75.0, gt=0)
    """A connection without a request; longer than the 60 s after which load balancers drop theirs."""
    connections: int = Field(default=10_000, ge=1)
    """Most client connections to one process; one more is answered 503 and closed."""
    folder: Path | None = None
    """Where spools and the last snapshot are; default <MINTMARK_DATA>/gateway. Shared by processes of one machine."""
    fsync: Fsync = Fsync.INTERVAL
    """When rows are on the disk: `always` before their answers, at an `interval`, `never` by this process."""
    fsync_interval_s: float = Field(default=0.05, gt=0)
    segment_bytes: int = Field(default=32 << 20, ge=1024)
    spool_bytes: int = Field(default=4 << 30, ge=4096)
    """Rows that are not shipped yet; beyond it each group's own choice holds: `refuse` or `drop`."""
    processes: int = Field(default=1, ge=1, le=64)
    """Gateway processes on one port (SO_REUSEPORT), each with a spool of its own."""
    poll_s: float = Field(default=1.0, gt=0)
    drain_s: float = Field(default=30.0, gt=0)

    @field_validator("grpc_port", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def own_folder(self) -> Path:
        return self.folder or self.platform.data / "gateway"

    @property
    def spool_folder(self) -> Path:
        return self.own_folder / "spool"

    @property
    def snapshot_file(self) -> Path:
        return self.own_folder / "snapshot.json"

    @property
    def spool_limits(self) -> SpoolLimits:
        return SpoolLimits(self.fsync, self.fsync_interval_s, self.segment_bytes, self.spool_bytes)
