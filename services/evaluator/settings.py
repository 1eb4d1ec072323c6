"""What can be set about the evaluator: MINTMARK_EVALUATOR_*."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """Scoring runs in processes of its own: models are native code, and may die without taking the service along."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_EVALUATOR_", frozen=True)

    processes: int = Field(default=1, ge=1, description="shards that are scored at once")
    lease_s: float = Field(default=12, gt=0, description="renewed while at work; so long after a crash another goes on")
    most_attempts: int = Field(default=3, ge=1, description="how often a shard may die before its evaluation fails")
    require_approved_datasets: bool = Field(default=True, description="wait for dataset.approved before measuring")
