"""What can be set about the evaluator: MINTMARK_EVALUATOR_*."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """Scoring runs in processes of its own: models are native code, and may die without taking the service along."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_EVALUATOR_", frozen=True)

    processes: int = Field(default=1, ge=1, description="shards that are scored at once")
    lease_s: float = Field(default=12, gt=0, description="renewed while at work; so long after a crash another goes on")
    most_attempts: int = Field(default=3, ge=1, description="how often a shard may die before its evaluation fails")
    require_approved_datasets: bool = Field(default=True, description="wait for dataset.approved before measuring")
    gateway_url: str | None = Field(
        default=None, pattern=r"^(https?://\S+)?$", description="of the gateway; without it no prompt is measured"
    )
    gateway_key: SecretStr | None = Field(default=None, description="API key of the gateway")
    gateway_workspace: str = Field(
        default="default", description="of that key; rows of other workspaces would go there, so they are not measured"
    )
    answers_group: str | None = Field(
        default=None, description="group whose model answers where a prompt is measured and nobody names another"
    )
    answers_at_once: int = Field(default=8, ge=1, le=200, description="requests to the gateway of one shard")
    answer_timeout_s: float = Field(default=60, gt=0)
    answer_max_tokens: int = Field(default=512, ge=1, description="the longest answer that is asked for")
    gateway_pause_s: float = Field(default=30, gt=0, description="until a shard that met no gateway is tried again")
