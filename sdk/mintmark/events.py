"""CloudEvents for Mintmark's topics: made, signed with an API key, sent to Kafka, and read back."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib import import_module
from typing import Any

import rfc8785
import uuid_utils

SIGNING_INFO = b"mintmark event signing v1"


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event. `subject` is the Kafka key: the URN of the asset, or the aggregate's name."""

    type: str
    subject: str
    data: Any
    source: str
    id: str
    time: str
    workspace: str = "default"
    proof: str | None = None
    traceparent: str | None = None

    @classmethod
    def make(cls, type: str, subject: str, data: Any, *, source: str, workspace: str = "default") -> CloudEvent:
        """A new event with an id (UUIDv7) and the present time."""
        return cls(type, subject, data, source, str(uuid_utils.uuid7()), datetime.now(UTC).isoformat(), workspace)

    @classmethod
    def of_document(cls, document: dict[str, Any], *, source: str = "mintmark-cli") -> CloudEvent:
        """From a structured CloudEvent; id, time and source are added where they are missing. Raises ValueError."""
        for name in ("type", "data"):
            if name not in document:
                raise ValueError(f"the document has no {name}: it must be a CloudEvent with type, subject and data")
        made = cls.make(
            document["type"],
            document.get("subject") or "unknown",
            document["data"],
            source=document.get("source", source),
            workspace=document.get("workspace", "default"),
        )
        return replace(
            made,
            id=document.get("id", made.id),
            time=document.get("time", made.time),
            proof=document.get("proof"),
            traceparent=document.get("traceparent"),
        )

    @property
    def topic(self) -> str:
        """The topic that carries this type: `asset.submitted` for `asset.submitted.v1`."""
        return self.type.rpartition(".v")[0]

    def headers(self) -> list[tuple[str, bytes]]:
        """Kafka headers of the CloudEvents binary mode."""
        pairs = [
            ("ce_specversion", "1.0"),
            ("ce_id", self.id),
            ("ce_source", self.source),
            ("ce_type", self.type),
            ("ce_subject", self.subject),
            ("ce_time", self.time),
            ("ce_workspace", self.workspace),
            ("ce_proof", self.proof),
            ("traceparent", self.traceparent),
            ("content-type", "application/json"),
        ]
        return [(name, value.encode()) for name, value in pairs if value is not None]


def signed(event: CloudEvent, api_key: str) -> CloudEvent:
    """The event with a proof of its author: a JWS made with the Ed25519 key that belongs to the API key."""
    # Here, because most clients sign nothing and need not wait for what does.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from joserfc import jws
    from joserfc.jwk import OKPKey

    seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=SIGNING_INFO).derive(api_key.encode())
    private = Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    claims = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "workspace": event.workspace,
        "sha256": hashlib.sha256(rfc8785.dumps(event.data)).hexdigest(),
    }
    header = {"alg": "Ed25519", "kid": api_key.rpartition("_")[0]}
    proof = jws.serialize_compact(
        header, json.dumps(claims).encode(), OKPKey.import_key(private), algorithms=["Ed25519"]
    )
    return replace(event, proof=proof)


async def publish(bootstrap: str, events: Iterable[CloudEvent]) -> list[tuple[str, int, int]]:
    """Send events in order; returns topic, partition and offset of each once Kafka has them for good."""
    await asyncio.to_thread(import_module, "aiokafka")  # large, and most clients send nothing to Kafka
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        found = []
        for event in events:
            sent = await producer.send_and_wait(
                event.topic, json.dumps(event.data).encode(), key=event.subject.encode(), headers=event.headers()
            )
            found.append((sent.topic, sent.partition, sent.offset))
        return found
    finally:
        await producer.stop()


async def tail(bootstrap: str, pattern: str, *, from_start: bool = False) -> AsyncIterator[dict[str, Any]]:
    """Events whose type matches a pattern such as `asset.*`, as structured documents, as they come."""
    await asyncio.to_thread(import_module, "aiokafka")
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest" if from_start else "latest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        known = await consumer.topics()
        topics = sorted(name for name in known if not name.startswith("__") and _may_carry(name, pattern))
        if not topics:
            raise ValueError(f"no topic carries events like {pattern!r}; there are: {', '.join(sorted(known))}")
        consumer.subscribe(topics)
        async for record in consumer:
            document = structured(record.headers, record.key, record.value)
            if fnmatch(document["type"], pattern) or fnmatch(record.topic, pattern):
                yield {**document, "kafka": f"{record.topic}/{record.partition}/{record.offset}"}
    finally:
        await consumer.stop()


def _may_carry(topic: str, pattern: str) -> bool:
    return fnmatch(topic, pattern) or fnmatch(f"{topic}.v1", pattern)


def structured(headers: Iterable[tuple[str, bytes]], key: bytes | None, value: bytes | None) -> dict[str, Any]:
    """A Kafka record as a structured CloudEvent document; what is no JSON is shown as text."""
    attributes = {name[3:]: raw.decode("utf-8", "replace") for name, raw in headers if name.startswith("ce_")}
    try:
        data = json.loads(value or b"null")
    except ValueError:
        data = (value or b"").decode("utf-8", "replace")
    attributes.setdefault("type", "unknown")
    attributes.setdefault("subject", (key or b"").decode("utf-8", "replace"))
    return {**attributes, "data": data}
