"""A test's own installation: database, topics, keys and artefact folder; services in this process or apart."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.bus import topics
from shared.bus.transport import KafkaSettings
from shared.events import SERVICES
from shared.events import topics as every_topic
from shared.events.base import Event
from shared.events.envelope import Envelope, decode, encode, parse
from shared.identity.keys import ApiKey, append
from shared.identity.proof import sign
from shared.ids import new_id
from shared.service import Service
from shared.settings import PlatformSettings
from shared.testing.backing import Backing

T = TypeVar("T")
SESSION_TIMEOUT_S = 3.0
"""The least that the brokers of a test run allow: every test that kills a process waits for it."""
WITHIN_S = 60.0
"""How long a test waits for what has to come: not a judgement of speed, which a busy machine would make for us."""


@dataclass
class Installation:
    """Everything of one test, apart from every other test's."""

    backing: Backing
    folder: Path
    database: str = field(default_factory=lambda: f"t_{uuid4().hex[:12]}")
    prefix: str = field(default_factory=lambda: f"t{uuid4().hex[:8]}.")
    partitions: int = 1
    services: dict[str, Service] = field(default_factory=dict)
    _producer: AIOKafkaProducer | None = None

    async def prepare(self, *, tables: bool = True) -> Installation:
        """Make database, key files and trust; topics come with `make_topics` or with the first service."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await (self.backing.new_database if tables else self.backing.empty_database)(self.database)
        trust = {}
        for service in ("policy", "deployer", "router", "registry", "prompts"):
            key = Ed25519PrivateKey.generate()
            (self.folder / f"{service}.pem").write_bytes(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
            trust[service] = base64.b64encode(key.public_key().public_bytes_raw()).decode()
        (self.folder / "trust.json").write_text(json.dumps(trust))
        (self.folder / "keys.json").write_text("[]")
        master = {"current": "1", "keys": {"1": base64.b64encode(secrets.token_bytes(32)).decode()}}
        (self.folder / "master-key.json").write_text(json.dumps(master))
        return self

    async def close(self) -> None:
        """Stop what was started here and drop the database."""
        for service in reversed(list(self.services.values())):
            await service.stop()
        if self._producer is not None:
            await self._producer.stop()
        await self.backing.drop_database(self.database)

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(
            bootstrap=self.backing.bootstrap,
            topic_prefix=self.prefix,
            partitions=self.partitions,
            session_timeout_s=SESSION_TIMEOUT_S,
        )

    def platform(self, **more: Any) -> PlatformSettings:
        return PlatformSettings(
            data=self.folder,
            artefacts=(self.folder / "artefacts").absolute().as_uri(),
            keys_file=self.folder / "keys.json",
            trust_file=self.folder / "trust.json",
            **more,
        )

    def dsn(self, service: str) -> str:
        return self.backing.dsn(self.database, service)

    def settings(self, service: str, **more: Any) -> Any:
        """The service's Settings for this installation."""
        cls = import_module(f"services.{service}.settings").Settings
        if service in ("policy", "deployer", "router", "registry", "prompts"):
            more.setdefault("signing_key_file", self.folder / f"{service}.pem")
        if service == "router":
            more.setdefault("master_key_file", self.folder / "master-key.json")
            more.setdefault("provider_networks", "127.0.0.1")
        return cls(dsn=self.dsn(service), platform=self.platform(), kafka=self.kafka, pool_size=6, **more)

    def environment(self) -> dict[str, str]:
        """The same as environment variables, for services that run as processes of their own."""
        return {
            **{f"MINTMARK_{service.upper()}_DSN": self.dsn(service) for service in SERVICES},
            "MINTMARK_ADMIN_DSN": self.backing.dsn(self.database),
            "MINTMARK_KAFKA_BOOTSTRAP": self.backing.bootstrap,
            "MINTMARK_KAFKA_TOPIC_PREFIX": self.prefix,
            "MINTMARK_KAFKA_PARTITIONS": str(self.partitions),
            "MINTMARK_KAFKA_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            "MINTMARK_DATA": str(self.folder),
            "MINTMARK_ARTEFACTS": (self.folder / "artefacts").absolute().as_uri(),
            "MINTMARK_KEYS_FILE": str(self.folder / "keys.json"),
            "MINTMARK_TRUST_FILE": str(self.folder / "trust.json"),
            "MINTMARK_ROUTER_MASTER_KEY_FILE": str(self.folder / "master-key.json"),
            "MINTMARK_ROUTER_PROVIDER_NETWORKS": "127.0.0.1",
            "MINTMARK_POLICY_SIGNING_KEY_FILE": str(self.folder / "policy.pem"),
            "MINTMARK_DEPLOYER_SIGNING_KEY_FILE": str(self.folder / "deployer.pem"),
            "MINTMARK_ROUTER_SIGNING_KEY_FILE": str(self.folder / "router.pem"),
            "MINTMARK_REGISTRY_SIGNING_KEY_FILE": str(self.folder / "registry.pem"),
            "MINTMARK_PROMPTS_SIGNING_KEY_FILE": str(self.folder / "prompts.pem"),
        }

    def key(self, principal: str, *roles: str, workspace: str = "default") -> str:
        """A new API key's text. Key rings read their file at most once a second: make keys before services start."""
        text, record = ApiKey.generate(principal, roles or ("owner",), workspace)
        append(self.folder / "keys.json", record)
        return text

    async def make_topics(self, *names: str) -> None:
        """Make the named topics, or all."""
        await topics.ensure(self.kafka, [spec for spec in every_topic() if not names or spec.name in names])

    async def start(self, *names: str, **settings: Any) -> None:
        """Start services in this process and wait until they are ready."""
        await self.make_topics()
        for name in names:
            service: Service = import_module(f"services.{name}.app").build(self.settings(name, **settings))
            self.services[name] = service
            await service.start()
        for name in names:
            await eventually(self.services[name].complaints, lambda found: not found, what=f"{name} ready")

    def client(self, service: str, key: str | None = None) -> httpx.AsyncClient:
        """An HTTP client on a service of this process, through its whole edge."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(app=self.services[service].edge, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers, timeout=30)

    async def producer(self) -> AIOKafkaProducer:
        """A plain Kafka producer, as any pipeline has one."""
        if self._producer is None:
            self._producer = AIOKafkaProducer(bootstrap_servers=self.backing.bootstrap, acks="all")
            await self._producer.start()
        return self._producer

    async def publish(
        self,
        event: Event,
        *,
        key: str | None = None,
        workspace: str = "default",
        event_id: str | None = None,
        source: str = "test/pipeline",
        sequence: int | None = None,
        traceparent: str | None = None,
        times: int = 1,
    ) -> str:
        """Publish an event as an outsider would, signed when an API key is given; returns its id."""
        data = encode(event)
        event_id = event_id or str(new_id())
        proof = sign(key, event_id, source, event.type(), workspace, json.loads(data)) if key else None
        envelope = Envelope(
            event_id,
            source,
            event.type(),
            event.key,
            data,
            workspace=workspace,
            proof=proof,
            sequence=sequence,
            traceparent=traceparent,
        )
        for _ in range(times):
            await self.send_raw(event.topic.name, data, envelope.headers(), event.key.encode())
        return event_id

    async def send_raw(
        self, topic: str, value: bytes | None, headers: list[tuple[str, bytes]], key: bytes | None = None
    ) -> None:
        """Put a record on a topic as it is."""
        producer = await self.producer()
        await producer.send_and_wait(self.kafka.topic(topic), value, key=key, headers=headers)

    async def records(self, topic: str) -> list[ConsumerRecord]:
        """Every record that the topic holds now."""
        consumer = AIOKafkaConsumer(
            self.kafka.topic(topic),
            bootstrap_servers=self.backing.bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()) or await _assigned(consumer))
            found: list[ConsumerRecord] = []
            while any([await consumer.position(partition) < end for partition, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=300)).values():
                    found.extend(records)
            return found
        finally:
            await consumer.stop()

    async def events(self, cls: type[Event]) -> list[Any]:
        """Every event of a class that its topic holds now, parsed, in order, once.

        A relay that was killed after its send and before its note of it sends again: the topic then holds the same
        event twice, under one id, which every consumer takes as one.
        """
        envelopes = [decode(record.value, record.headers, record.key) for record in await self.records(cls.topic.name)]
        once: dict[str, Envelope] = {}
        for envelope in envelopes:
            if envelope.type == cls.type():
                once.setdefault(envelope.id, envelope)
        return [parse(envelope) for envelope in once.values()]

    async def wait_for(self, cls: type[Event], matching: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first event of a class that matches; raises AssertionError when none comes."""

        async def look() -> Any:
            return next((event for event in await self.events(cls) if matching(event)), None)

        return await eventually(look, lambda event: event is not None, what=cls.type())


async def _assigned(consumer: AIOKafkaConsumer) -> list[Any]:
    while not consumer.assignment():
        await asyncio.sleep(0.01)
    return list(consumer.assignment())


async def eventually(look: Callable[[], Awaitable[T]], done: Callable[[T], bool], *, what: str = "it") -> T:
    """Look again and again until `done`; raises AssertionError with the last sight after `WITHIN_S` seconds."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        found = await look()
        if done(found):
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {WITHIN_S:.0f} s; last seen: {str(found)[:500]}")
        await asyncio.sleep(0.05)
