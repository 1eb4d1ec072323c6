"""What the shipper makes of a stretch of a spool, whatever field rules or a power loss left of its rows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
import pytest

from services.router.gateway import rows
from services.router.gateway.shipper.batch import Batch, said_of_guards
from services.router.gateway.spool.format import FRAME, address, frame, records

BLOCKED = {"name": "no-names", "on": "input", "outcome": "blocked"}


def a_row(number: int, tags: Any = None, shadow_of: UUID | None = None, caller_id: str | None = None) -> bytes:
    """A payload as the gateway spools it."""
    arm = "shadow" if shadow_of else "champion"
    return b"".join(
        (
            address("acme", "fraud"),
            rows.head(UUID(int=number).bytes, 1_800_000_000.0, 200, 1.0, 1),
            rows.text("acme"),
            rows.served_by("mm:model/fraud", 1, "sha256:" + "0" * 64, arm),
            rows.rest(
                f"unit-{number}", f"{number:032x}", rows.asked_by(None, "open-inference"), rows.Answer(200),
                error_code=None, upstream_ms=None, ttft_ms=None, attempts=1, client_request_id=caller_id,
                features=None, input=None, shadow_of=None if shadow_of is None else shadow_of.bytes,
                tags=None if tags is None else orjson.dumps(tags),
            ),
        )
    )  # fmt: skip


def batch_of(*payloads: bytes) -> Batch:
    data = b"".join(map(frame, payloads))
    batch = Batch()
    batch.add(data, records(data).payloads)
    return batch


def units(batch: Batch) -> list[str]:
    return [one["unit"] for group in batch.groups.values() for one in group.said]


@pytest.mark.parametrize(
    "guards",
    [
        [{"on": "input", "outcome": "blocked"}],  # tags.guards[*].name was dropped
        [None, None],  # tags.guards[*]
        [{"name": None, "on": "input", "outcome": "blocked"}],
        "what a key made of tags.guards",
    ],
)
def test_a_field_rule_on_guards_costs_their_event_and_no_row(guards: Any) -> None:
    batch = batch_of(a_row(1), a_row(2, {"guards": guards}), a_row(3, {"guards": [BLOCKED]}))
    assert units(batch) == ["unit-1", "unit-2", "unit-3"] and batch.unread == []
    (group,) = batch.groups.values()
    events = said_of_guards([trip for trips in group.tripped.values() for trip in trips])
    assert [orjson.loads(data)["request_id"] for _, _, _, data in events] == [str(UUID(int=3))]


@pytest.mark.parametrize("broken", [b"\x00", b"\xff", b"no row", a_row(2)[:60], a_row(2, ["tags of another shape"])])
def test_a_payload_that_is_no_row_is_set_aside_alone(broken: bytes) -> None:
    batch = batch_of(a_row(1), broken, a_row(3))
    assert units(batch) == ["unit-1", "unit-3"] and [payload for payload, _ in batch.unread] == [broken]
    assert len(batch.groups) == 1


def test_zeros_after_a_power_loss_are_no_records() -> None:
    whole = frame(a_row(1))
    found = records(whole + bytes(40 * FRAME.size))
    assert found.payloads == [(FRAME.size, len(whole))] and found.bad and found.end == len(whole)


def test_a_shadows_row_names_the_request_that_it_is_a_copy_of() -> None:
    of = UUID(int=77)
    batch = batch_of(a_row(1), a_row(2, shadow_of=of), a_row(3, {"cache": "hit"}), a_row(4, {"a": 1}, of, "mine"))
    (group,) = batch.groups.values()
    assert [one.route for one in group.outcomes] == ["weight", "shadow", "cached", "shadow"]
    assert {place: str(found) for place, found in group.shadowed.items()} == {1: str(of), 3: str(of)}
