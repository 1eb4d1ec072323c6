"""AsyncAPI 3.0 of a service, made from the event classes that it says and hears."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.events.base import Event


def document(service: str, says: Iterable[type[Event]], hears: Iterable[type[Event]]) -> dict[str, Any]:
    """The document that `/asyncapi.json` serves. Schemas are the committed contracts, by reference to `/schemas`."""
    says, hears = tuple(says), tuple(hears)
    events = sorted({*says, *hears}, key=lambda event: event.type())
    channels: dict[str, Any] = {}
    for event in events:
        channel = channels.setdefault(
            event.topic.name,
            {
                "address": event.topic.name,
                "messages": {},
                "bindings": {
                    "kafka": {
                        "topic": event.topic.name,
                        "partitions": event.topic.partitions,
                        "topicConfiguration": _configuration(event),
                    }
                },
            },
        )
        channel["messages"][event.type()] = {"$ref": f"#/components/messages/{event.type()}"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Mintmark {service}",
            "version": "1",
            "description": f"What {service} says and hears on Kafka, as CloudEvents 1.0.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            **{f"send.{event.type()}": _operation("send", event) for event in says},
            **{f"receive.{event.type()}": _operation("receive", event) for event in hears},
        },
        "components": {"messages": {event.type(): _message(event) for event in events}},
    }


def _configuration(event: type[Event]) -> dict[str, Any]:
    settings = event.topic.settings()
    return {"cleanup.policy": [settings["cleanup.policy"]], "retention.ms": int(settings["retention.ms"])}


def _operation(action: str, event: type[Event]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{event.topic.name}"},
        "messages": [{"$ref": f"#/channels/{event.topic.name}/messages/{event.type()}"}],
    }


def _message(event: type[Event]) -> dict[str, Any]:
    return {
        "name": event.type(),
        "title": event.__name__,
        "summary": (event.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                name: {"type": "string"}
                for name in (
                    "ce_specversion",
                    "ce_id",
                    "ce_source",
                    "ce_type",
                    "ce_subject",
                    "ce_time",
                    "ce_workspace",
                    "ce_proof",
                    "traceparent",
                )
            },
            "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        },
        "payload": event.model_json_schema(by_alias=True),
        "bindings": {
            "kafka": {"key": {"type": "string", "description": "the URN of the asset, or the aggregate's name"}}
        },
    }
