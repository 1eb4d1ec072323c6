"""What can be set about the prompts service: MINTMARK_PROMPTS_*."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """Nothing beyond what every service has."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_PROMPTS_", frozen=True)
