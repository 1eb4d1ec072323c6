"""How this process reaches Kafka: one settings object, and the client arguments that follow from it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient

MAX_RECORD_BYTES = 4 * 1024 * 1024
"""A dead letter is the original record (at most 1 MiB) with the story of its failure."""


class KafkaSettings(BaseSettings):
    """MINTMARK_KAFKA_*. The topic prefix sets whole installations apart on one cluster."""

    model_config = SettingsConfigDict(env_prefix="MINTMARK_KAFKA_", frozen=True)

    bootstrap: str = "127.0.0.1:8792"
    topic_prefix: str = ""
    partitions: int | None = Field(
        default=None, ge=1, description="overrides every topic's declared count (not below 1)"
    )
    replication: int = Field(default=1, ge=1)
    session_timeout_s: float = Field(
        default=10.0,
        ge=1,
        le=300,
        description="after so long without a heartbeat others take a consumer's partitions; brokers allow 6 s at least "
        "unless they are told otherwise (group.min.session.timeout.ms)",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str | None = None
    sasl_password: str | None = None
    ca_file: str | None = None

    def topic(self, name: str) -> str:
        """A declared topic's name on this cluster."""
        return self.topic_prefix + name

    def declared(self, topic: str) -> str:
        """The declared name of a topic on this cluster."""
        return topic.removeprefix(self.topic_prefix)

    def security(self) -> dict[str, Any]:
        """Arguments that every aiokafka client takes."""
        context = None
        if self.security_protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=self.ca_file)
        return {
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism if self.sasl_username else "PLAIN",
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "ssl_context": context,
        }

    def producer(self, client_id: str) -> AIOKafkaProducer:
        """A producer that loses and doubles nothing while it lives: acks=all, idempotent."""
        from aiokafka import AIOKafkaProducer  # the gateway has these settings, too, and no client

        return AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            max_batch_size=256 * 1024,
            max_request_size=MAX_RECORD_BYTES,
            request_timeout_ms=10_000,
            retry_backoff_ms=100,
            **self.security(),
        )

    def admin(self) -> AIOKafkaAdminClient:
        from aiokafka.admin import AIOKafkaAdminClient

        return AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=15_000, **self.security())

    async def answers(self, within_s: float = 5.0) -> bool:
        """True when a new client reaches the cluster: what an old one does not hear is then its own fault."""
        admin = self.admin()
        try:
            async with asyncio.timeout(within_s):
                await admin.start()
            return True
        except Exception:  # the client raises many kinds while no broker is there
            return False
        finally:
            with contextlib.suppress(Exception):
                await admin.close()
