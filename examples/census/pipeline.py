"""An upstream pipeline's side of the contract: CloudEvents on Kafka, held against the published JSON Schemas, signed.

Fifty lines that any team can write in any language; nothing of Mintmark is imported. The proof of the author is a
compact JWS (RFC 7515) in the CloudEvents extension `proof`; docs/how-to/publish-events.md explains each part.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx
import jsonschema
import rfc8785
import uuid_utils
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import OKPKey

SOURCE = "pipelines/census"
HEARD = (
    "asset.registered", "asset.refused", "dataset.approved", "eval.completed", "eval.failed", "gate.decided",
    "approval.decided", "deploy.completed", "deploy.failed",
)  # fmt: skip


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def new_trace() -> str:
    """A W3C traceparent: one trace for everything that follows."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


class Signer:
    """Proves that whoever holds the API key wrote an event."""

    def __init__(self, api_key: str) -> None:
        seed = HKDF(SHA256(), length=32, salt=None, info=b"mintmark event signing v1").derive(api_key.encode())
        private = Ed25519PrivateKey.from_private_bytes(seed)
        self._key = OKPKey.import_key(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._key_id = api_key.rpartition("_")[0]

    def proof(self, event_id: str, event_type: str, data: Any, workspace: str = "default") -> str:
        claims = {
            "id": event_id,
            "source": SOURCE,
            "type": event_type,
            "workspace": workspace,
            "sha256": hashlib.sha256(rfc8785.dumps(data)).hexdigest(),
        }
        header = {"alg": "Ed25519", "kid": self._key_id}
        return jws.serialize_compact(header, json.dumps(claims).encode(), self._key, algorithms=["Ed25519"])


class Kafka:
    """Publishes signed events and waits for the answers."""

    def __init__(self, bootstrap: str, signer: Signer, url: str) -> None:
        self._signer = signer
        self._url = url
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
        self._consumer = AIOKafkaConsumer(*HEARD, bootstrap_servers=bootstrap, auto_offset_reset="latest")
        self._heard: list[tuple[str, dict[str, Any]]] = []
        self._waiting: list[tuple[str, Callable[[dict[str, Any]], bool], asyncio.Future[dict[str, Any]]]] = []
        self._schemas: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._consumer.start()
        await self._consumer.seek_to_end()
        for partition in self._consumer.assignment():
            await self._consumer.position(partition)  # from here on nothing is missed
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.cancel()
        await self._consumer.stop()
        await self._producer.stop()

    async def publish(
        self, event_type: str, subject: str, data: dict[str, Any], traceparent: str, signer: Signer | None = None
    ) -> None:
        """One event in the CloudEvents binary mode: attributes as headers, data as the value, the URN as the key."""
        jsonschema.validate(data, await self._schema(event_type))
        event_id = str(uuid_utils.uuid7())
        attributes = {
            "ce_specversion": "1.0",
            "ce_id": event_id,
            "ce_source": SOURCE,
            "ce_type": event_type,
            "ce_subject": subject,
            "ce_time": datetime.now(UTC).isoformat(),
            "ce_proof": (signer or self._signer).proof(event_id, event_type, data),
            "content-type": "application/json",
            "traceparent": traceparent,
        }
        headers = [(name, value.encode()) for name, value in attributes.items()]
        topic = event_type.rpartition(".v")[0]
        await self._producer.send_and_wait(topic, json.dumps(data).encode(), key=subject.encode(), headers=headers)

    async def _schema(self, event_type: str) -> Any:
        if event_type not in self._schemas:
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"{self._url}/schemas/{event_type}.json")
                self._schemas[event_type] = answer.raise_for_status().json()
        return self._schemas[event_type]

    def expect(self, topic: str, matches: Callable[[dict[str, Any]], bool]) -> asyncio.Future[dict[str, Any]]:
        """The first event of a topic that matches, heard already or yet to come."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        for heard_topic, data in self._heard:
            if heard_topic == topic and matches(data):
                future.set_result(data)
                return future
        self._waiting.append((topic, matches, future))
        return asyncio.ensure_future(asyncio.wait_for(future, 90))

    async def _read(self) -> None:
        async for record in self._consumer:
            data = json.loads(record.value)
            self._heard.append((record.topic, data))
            for topic, matches, future in self._waiting:
                if topic == record.topic and not future.done() and matches(data):
                    future.set_result(data)
