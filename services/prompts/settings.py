"""What can be set about the prompts service: MINTMARK_PROMPTS_*."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """Beside what every service has."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_PROMPTS_", frozen=True)

    signing_key_file: Path | None = Field(
        default=None, description="PEM of the Ed25519 key that snapshots are signed with; without it there are none"
    )
    rendering_processes: int = Field(default=2, ge=1, le=32, description="processes that render templates")
