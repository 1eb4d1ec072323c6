"""Topics are made by us, as the contracts declare them; what differs on the cluster is reported, never changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from shared.bus.transport import KafkaSettings
from shared.errors import Unavailable
from shared.events.base import TopicSpec


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting of an existing topic that is not as declared."""

    topic: str
    setting: str
    declared: str
    found: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found}, declared is {self.declared}"


async def ensure(kafka: KafkaSettings, specs: Iterable[TopicSpec], *, patience_s: float = 30.0) -> list[Difference]:
    """Make the topics that are missing; returns how the present ones differ. Raises Unavailable after `patience_s`."""
    wanted = list(specs)
    deadline = time.monotonic() + patience_s
    while True:
        admin = kafka.admin()
        try:
            await admin.start()
            await _create(admin, kafka, wanted)
            return await _differences(admin, kafka, wanted)
        except (KafkaError, OSError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka at {kafka.bootstrap} does not answer: {error}") from error
            await asyncio.sleep(0.5)
        finally:
            await admin.close()


async def _create(admin: object, kafka: KafkaSettings, specs: list[TopicSpec]) -> None:
    present = set(await admin.list_topics())  # type: ignore[attr-defined]
    missing = [
        NewTopic(
            kafka.topic(spec.name),
            _partitions(kafka, spec),
            kafka.replication,
            topic_configs=_settings(spec),
        )
        for spec in specs
        if kafka.topic(spec.name) not in present
    ]
    if not missing:
        return
    answer = await admin.create_topics(missing)  # type: ignore[attr-defined]
    for name, code, *message in answer.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {message}")


def _partitions(kafka: KafkaSettings, spec: TopicSpec) -> int:
    return spec.partitions if kafka.partitions is None else min(spec.partitions, kafka.partitions)


def _settings(spec: TopicSpec) -> dict[str, str]:
    settings = spec.settings()
    if spec.name.endswith(".dlq"):
        settings["max.message.bytes"] = str(4 * 1024 * 1024)
    return settings


async def _differences(admin: object, kafka: KafkaSettings, specs: list[TopicSpec]) -> list[Difference]:
    by_name = {kafka.topic(spec.name): spec for spec in specs}
    found: list[Difference] = []
    for described in await admin.describe_topics(list(by_name)):  # type: ignore[attr-defined]
        spec = by_name[described["topic"]]
        count = len(described["partitions"])
        if count and count != _partitions(kafka, spec):
            found.append(Difference(described["topic"], "partitions", str(_partitions(kafka, spec)), str(count)))
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in by_name]
    for answer in await admin.describe_configs(resources):  # type: ignore[attr-defined]
        for _, _, _, name, entries in answer.resources:
            if name not in by_name:
                continue
            present = {entry[0]: entry[1] for entry in entries}
            for setting, value in _settings(by_name[name]).items():
                if present.get(setting, value) != value:
                    found.append(Difference(name, setting, value, str(present[setting])))
    return found
