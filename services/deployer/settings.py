"""What can be set about the deployer: MINTMARK_DEPLOYER_*."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """`unverified` says what becomes of a deploy.requested whose author no signature proves. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_DEPLOYER_", frozen=True, protected_namespaces=())

    signing_key_file: Path
    unverified: Literal["refuse", "allow"] = "refuse"
    model_server_url: str = "http://127.0.0.1:8720"
    model_server_token_file: Path | None = None
    concurrency: int = Field(default=4, ge=1, le=64, description="deployments worked on at the same time")
    lease_s: float = Field(default=15, gt=0, description="so long after a crash does another worker take over")
    patience_s: float = Field(default=10, ge=0, description="how long a request waits for news of asset and approval")
    most_tries: int = Field(default=8, ge=1, description="tries at a target that does not answer, before it fails")
    reconcile_s: float = Field(
        default=30, gt=0, description="how often targets are asked what they serve, and approvals looked at"
    )
