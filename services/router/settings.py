"""What can be set about the router's control plane: MINTMARK_ROUTER_*."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """The trust file's `policy` key is what approvals are verified with; without one nothing may be moved to."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_ROUTER_", frozen=True)

    require_proof: bool = Field(default=False, description="refuse feedback on Kafka whose author nobody has proven")
    compare_poll_s: float = Field(
        default=0.5, gt=0, description="how often labels are joined with their rows and aggregates folded"
    )
    measured_every_s: float = Field(
        default=30, gt=0, description="a group's figures, when they moved, are told to other services at most so often"
    )
    ramp_poll_s: float = Field(default=1.0, gt=0, description="how often ramps are looked at for something to do")
    master_key_file: Path | None = Field(
        default=None,
        description="seals providers' keys (gateway/sealing.py); without one none can be set",
    )
    master_key_kms: str = Field(default="", description="ARN or alias of a KMS key, in place of the file")
    provider_networks: str = Field(
        default="", description="networks beside the public internet where providers may be: 10.1.0.0/16,127.0.0.1"
    )
    gateway_url: str = Field(
        default="", description="where batches ask the gateway; by default where everybody does, MINTMARK_GATEWAY_URL"
    )
    batch_jobs: int = Field(default=2, ge=0, le=64, description="batches that one router works on at a time")
    batch_poll_s: float = Field(default=1.0, gt=0, description="how often batches are looked for")
    batch_lease_s: float = Field(
        default=60, gt=0, description="a batch whose router says nothing for so long is taken over by another"
    )
    batch_input_bytes: int = Field(default=1 << 30, ge=1024, description="largest input file of a batch")
    batch_rows: int = Field(default=1_000_000, ge=1, description="most rows of a batch")
    days_poll_s: float = Field(
        default=600, gt=0, description="how often days of the inference tables are made ahead and old ones ended"
    )
    tables_poll_s: float = Field(
        default=2, gt=0, description="how often typed views are compared with champions, and deletions carried out"
    )
    deletion_settle_s: float = Field(
        default=60, ge=0, description="how long after a group is retired its last rows may be on their way"
    )
    signing_key_file: Path | None = Field(
        default=None, description="signs receipts of erasures (Ed25519, PEM); without one they are kept unsigned"
    )
