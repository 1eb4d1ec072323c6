"""Events that somebody made up to break us, on every topic that is heard: refused or buried with a code, or taken."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from shared.bus import dead_letters
from shared.events import BY_TYPE, SERVICES
from shared.events.envelope import Envelope
from shared.testing.installation import Installation, eventually
from tests.faults import hostile
from tests.faults.world import Tape

pytestmark = pytest.mark.timeout(180)
OF_A_TYPE = 2 * max(20, int(os.environ.get("MINTMARK_TEST_SEEDS") or 0))
ATTRIBUTES: tuple[dict[str, bytes], ...] = (
    {"ce_id": b"x" * 1000},
    {"ce_id": b"\xff"},
    {"ce_id": b"a\x00b"},
    {"ce_source": b"x" * 10_000},
    {"ce_sequence": b"99999999999999999999999"},
    {"ce_sequence": b"-1"},
    {"ce_sequence": "٣".encode()},
    {"ce_time": b"0001-01-01T00:00:00+14:00"},
    {"ce_time": b"9999-12-31T23:59:59-14:00"},
    {"ce_time": b"2026-01-01T00:00:00"},
    {"ce_time": b"yesterday"},
    {"ce_workspace": b"*"},
    {"ce_workspace": b"other'; --"},
    {"ce_subject": b"x" * 10_000},
    {"ce_subject": b"a\x00b"},
    {"ce_type": b"no.such.event.v1"},
    {"ce_proof": b"not.a.proof"},
    {"ce_proof": b"x" * 50_000},
    {"ce_proof": b"a\x00b"},
    {"traceparent": b"00-zz-zz-zz"},
    {"traceparent": b"a\x00b"},
    {"ce_correlationid": b"x" * 100_000},
    {"ce_correlationid": b"a\x00b"},
    {"ce_causationid": b"a\x00b"},
    {"content-type": b"application/cloudevents+json"},
)


async def test_no_event_surprises_a_handler(installation: Installation) -> None:
    random = Random(1)
    await installation.start(*SERVICES)
    heard = sorted({event.type() for service in installation.services.values() for event in service.hears})
    sent = 0
    for event_type in heard:
        found = hostile.changes(example(event_type))
        for document in random.sample(found, min(OF_A_TYPE, len(found))):
            await send(installation, event_type, document)
            sent += 1
    for attributes in ATTRIBUTES:
        for event_type in ("asset.submitted.v1", "deploy.requested.v1", "feedback.received.v1", "eval.completed.v1"):
            await send(installation, event_type, example(event_type), attributes)
            sent += 1

    tape = await Tape(installation).start()
    try:
        await eventually(lambda: behind(installation, tape), lambda found: not found)
    finally:
        await tape.stop()
    codes = await reasons(installation)
    surprises = [f"{code}: {why[:400]}" for code, why in codes.items() if code != code.lower() or code == "internal"]
    assert not surprises, "\n".join(surprises)
    print(f"{sent} hostile events of {len(heard)} types; refused or waiting for {sorted(codes)}")


def example(event_type: str) -> Any:
    """The data of the contract's own example."""
    text = files("shared.events").joinpath("examples", f"{event_type}.json").read_text()
    return json.loads(text)["data"]


async def send(
    installation: Installation, event_type: str, document: object, attributes: Mapping[str, bytes] | None = None
) -> None:
    """A record with an aggregate of its own, so that no other waits behind it."""
    subject = f"mm:model/hostile-{uuid4().hex[:12]}"
    data = json.dumps(document).encode()
    headers = dict(Envelope(str(uuid4()), "test/hostile", event_type, subject, data).headers()) | dict(attributes or {})
    topic = BY_TYPE[event_type].topic.name
    await installation.send_raw(topic, data, list(headers.items()), subject.encode())


async def behind(installation: Installation, tape: Tape) -> dict[str, int]:
    """Which consumer groups have not committed everything yet, and how many records they have before them."""
    await tape.play()
    found = {}
    admin = installation.kafka.admin()
    await admin.start()
    try:
        for service in installation.services.values():
            for consumer in service.consumers:
                offsets = await admin.list_consumer_group_offsets(f"{installation.prefix}mintmark.{consumer.name}")
                ends = [
                    (part, end)
                    for part, end in tape.ends.items()
                    if installation.kafka.declared(part.topic) in consumer.topics
                ]
                left = sum(end - (offsets[part].offset if part in offsets else 0) for part, end in ends)
                if left:
                    found[consumer.name] = left
    finally:
        await admin.close()
    return found


async def reasons(installation: Installation) -> dict[str, str]:
    """Codes of all dead letters and of all parked events, each with one of its sentences."""
    codes: dict[str, str] = {}
    for service in installation.services.values():
        async with service.database.begin("*") as tx:
            for row in await tx.connection.fetch("SELECT error_code, error, topic FROM parked WHERE error_code <> ''"):
                codes[row["error_code"]] = f"{service.name} {row['topic']}: {row['error']}"
        for letter in await dead_letters.listed(installation.kafka, service.name, most=10_000):
            codes[letter.story("error-code")] = f"{service.name} {letter.story('topic')}: {letter.story('error')}"
    return codes
