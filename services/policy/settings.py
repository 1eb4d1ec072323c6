"""MINTMARK_POLICY_*: the signing key, and what an unverified author means."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """`unverified_author` says what a gate does with a version whose author no signature proves."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_POLICY_", frozen=True)

    signing_key_file: Path
    # Two consumers of eight lanes each, beside requests: a smaller pool would let the ledger starve the gates.
    pool_size: int = Field(default=20, ge=2)
    unverified_author: Literal["allow", "review", "reject"] = "allow"
    approval_days: int = Field(default=365, ge=1, le=3650, description="how long an approval lasts unless it says less")
