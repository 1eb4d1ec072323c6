"""The contracts: every event that any service or pipeline may publish, one module a producer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shared.events import deployer, evaluator, policy, prompts, registry, router, upstream
from shared.events.base import Actor, AssetRef, Event, TopicSpec

ALL: tuple[type[Event], ...] = (
    *upstream.EVENTS,
    *registry.EVENTS,
    *prompts.EVENTS,
    *evaluator.EVENTS,
    *policy.EVENTS,
    *deployer.EVENTS,
    *router.EVENTS,
)

BY_TYPE: dict[str, type[Event]] = {event.type(): event for event in ALL}
SERVICES = ("registry", "prompts", "evaluator", "deployer", "router", "policy")


def topics() -> Iterator[TopicSpec]:
    """Every topic once, each service's dead letters last."""
    yield from {event.topic.name: event.topic for event in ALL}.values()
    for service in SERVICES:
        yield dead_letters(service)


def dead_letters(service: str) -> TopicSpec:
    """The topic where a service puts what it could not handle; kept for 90 days."""
    return TopicSpec(f"{service}.dlq", partitions=1, retention_s=90 * 86_400)


def on_topic(name: str) -> tuple[type[Event], ...]:
    """The event classes (versions) that a topic may carry."""
    return tuple(event for event in ALL if event.topic.name == name)


def names(events: Iterable[type[Event]]) -> tuple[str, ...]:
    """Topic names of event classes, sorted."""
    return tuple(sorted({event.topic.name for event in events}))


__all__ = [
    "ALL",
    "BY_TYPE",
    "SERVICES",
    "Actor",
    "AssetRef",
    "Event",
    "TopicSpec",
    "dead_letters",
    "names",
    "on_topic",
    "topics",
]
