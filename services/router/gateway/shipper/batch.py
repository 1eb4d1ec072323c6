"""Spooled rows sorted by where they go: each group's tuples by day, what is said of them, what they add to figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from struct import Struct
from typing import Any

import orjson
from asyncpg.pgproto.pgproto import UUID  # the driver's: made and written ten times as fast as the standard one

from services.router.comparison.aggregates import BY_WEIGHT, CACHED, CHARGED, Outcome
from services.router.gateway import rows
from services.router.gateway.spool.format import addressed
from shared.events.router import GuardrailTripped, InferenceLogged

SAID_ROWS = 300
"""At its longest a row is 2.2 kB as JSON (256 characters of unit, 100 of label), so that a batch stays under 900 kB."""
MAX_LABEL = 100
MAX_REASON = 300
_DAY_US = 86_400_000_000
_FIRST_DAY = date(2000, 1, 1)
_EPOCH_US = int(rows.EPOCH_S) * 1_000_000
# upstream_ms, then ttft_ms null, attempts, and null up to tags: most rows of deployed models. Read in one, as a call a
# column took an eighth of all that the shipper does for a row. Lengths stand at the even places.
PLAIN = Struct(">i8s i0s i2s i0s i0s i0s i0s i0s i0s")
PLAIN_LENGTHS = (8, -1, 2, -1, -1, -1, -1, -1, -1)
# request_id, received_at, status, latency_ms and revision of rows.HEAD, whose lengths nobody needs.
_HEAD = Struct(">2x4x16s4xq4xh4xd4xq")
_INT = Struct(">i")
_UUID_LENGTH = _INT.pack(16)
_DOUBLE = Struct(">d")

Saying = tuple[str, str, str, bytes]
"""An event for the outbox: topic, type, key, data."""


@dataclass(slots=True)
class GroupRows:
    """One group's rows in their order: `said` as inference.logged has them, `outcomes` as the comparison does."""

    workspace: str
    group: str
    tuples: list[bytes] = field(default_factory=list)
    days: list[int] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    tripped: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """What guards did to a row's request, as guardrail.tripped has it, by the row's place."""
    shadowed: dict[int, UUID] = field(default_factory=dict)
    """The request that a shadow's row is a copy of, by the row's place."""
    drawn: dict[int, Any] = field(default_factory=dict)
    """Whom the weights chose where another version answered, as the row's tags have it, by the row's place."""
    events: list[Saying] = field(default_factory=list)
    """What a gateway has to say beside rows."""
    _served: bytes = b""
    _asked_by: bytes = b""
    _asset: tuple[str | None, int | None, str | None] = (None, None, None)
    _said_asset: orjson.Fragment | None = None
    _route: str = BY_WEIGHT

    def add(self, row: bytes) -> None:
        """Raises what Python raises for what is neither a row nor an event."""
        if row.startswith(rows.SAID):
            topic, kind, key, data = orjson.loads(row[len(rows.SAID) :])
            self.events.append((topic, kind, key, orjson.dumps(data)))
            return
        request, microseconds, status, latency_ms, revision = _HEAD.unpack_from(row)
        at = datetime.fromtimestamp((_EPOCH_US + microseconds) / 1e6, UTC)  # a double holds microseconds until 2242
        place = rows.HEAD.size
        if not self._served or not row.startswith(self._served, place):
            self._read_served(row, place)
        place += len(self._served)
        unit, place = _text(row, place)
        (length,) = _INT.unpack_from(row, place)
        score = _DOUBLE.unpack_from(row, place + 4)[0] if length > 0 else None
        prediction, place = _text(row, place + 4 + max(length, 0))
        error_code, place = _text(row, place)
        (length,) = _INT.unpack_from(row, place)  # of trace_id
        place += 4 + length
        if not self._asked_by or not row.startswith(self._asked_by, place):
            self._asked_by = row[place : _skipped(row, place, 2)]  # requester, protocol
        place += len(self._asked_by)
        request_id, route, tokens_in, tokens_out, cost = UUID(request), self._route, None, None, None
        if PLAIN.unpack_from(row, place)[::2] != PLAIN_LENGTHS:
            place = _skipped(row, place, 3)  # upstream_ms, ttft_ms, attempts
            tokens_in, place = _int4(row, place)
            tokens_out, place = _int4(row, place)
            (length,) = _INT.unpack_from(row, place)
            cost = rows.number(row[place + 4 : place + 4 + length]) if length > 0 else None
            place += 4 + max(length, 0)
            if route != BY_WEIGHT:
                place = _skipped(row, place, 1)  # client_request_id
                if row[place : place + 4] == _UUID_LENGTH:
                    self.shadowed[len(self.tuples)] = UUID(row[place + 4 : place + 20])
            elif tags := _tags(row, place):
                route = _route_of(tags)
                if drawn := tags.get("drawn"):
                    self.drawn[len(self.tuples)] = drawn
                if guards := tags.get("guards"):
                    self.tripped[len(self.tuples)] = _tripped(self.group, request_id, guards)
        urn, version, digest = self._asset
        self.outcomes.append(
            Outcome(
                request_id, at, revision, urn, version, digest, unit or "", status, error_code, latency_ms, score,
                tokens_in, tokens_out, cost, route,
            )
        )  # fmt: skip
        self.said.append(
            {
                "request_id": str(request_id),
                "at": at,
                "asset": self._said_asset,
                "unit": unit,
                "status": status,
                "latency_ms": latency_ms,
                "score": score,
                "label": None if prediction is None else prediction[:MAX_LABEL],
            }
        )
        self.days.append(microseconds // _DAY_US)
        self.tuples.append(row)

    def _read_served(self, row: bytes, start: int) -> None:
        """Workspace, asset, version, digest and arm: the same in all rows of a version, so read once."""
        workspace, place = _text(row, start)
        urn, place = _text(row, place)
        (length,) = _INT.unpack_from(row, place)
        version = _INT.unpack_from(row, place + 4)[0] if length > 0 else None
        digest, place = _text(row, place + 4 + max(length, 0))
        arm, place = _text(row, place)
        if workspace != self.workspace:
            raise ValueError(f"a row of {workspace} is addressed to {self.workspace}")
        self._served, self._asset = row[start:place], (urn, version, digest)
        named = {"urn": urn, "version": version, "digest": digest}
        self._said_asset = None if urn is None else orjson.Fragment(orjson.dumps(named))
        self._route = "shadow" if arm == "shadow" else BY_WEIGHT

    def counted(self, placed: Sequence[int]) -> list[Outcome]:
        """What these rows add to figures: theirs, and what is charged to versions that did not answer."""
        found = [self.outcomes[one] for one in placed]
        if self.drawn:
            charged = [_charged(self.outcomes[one], self.drawn[one]) for one in placed if one in self.drawn]
            found += [one for one in charged if one is not None]
        return found

    def by_day(self) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for day, row in zip(self.days, self.tuples, strict=True):
            found.setdefault(day, []).append(row)
        return found


@dataclass(slots=True)
class Batch:
    """What one transaction takes; `unread` are payloads that are no rows."""

    groups: dict[bytes, GroupRows] = field(default_factory=dict)
    unread: list[tuple[bytes, str]] = field(default_factory=list)
    count: int = 0

    def add(self, data: bytes, payloads: Iterable[tuple[int, int]]) -> None:
        for start, end in payloads:
            self.count += 1
            try:
                split = start + 1 + data[start]
                key = data[start:split]
                group = self.groups.get(key)
                if group is None:
                    workspace, name, _ = addressed(data[start:end])
                    group = GroupRows(workspace, name)
                group.add(data[split:end])
                self.groups[key] = group  # not before: an address that cannot be read is nobody's
            except Exception as error:  # whatever it is, it would come again at every start: one never stops the others
                self.unread.append((data[start:end], repr(error)))


def copied(tuples: Sequence[bytes]) -> bytes:
    """The rows as a whole binary COPY."""
    return b"".join((rows.COPY_HEADER, *tuples, rows.COPY_TRAILER))


def said_of_guards(found: Sequence[dict[str, Any]]) -> list[Saying]:
    """The guardrail.tripped events of these."""
    events = [GuardrailTripped.model_validate(one) for one in found]
    return [(one.topic.name, one.type(), one.key, one.model_dump_json().encode()) for one in events]


def said(group: str, entries: Sequence[dict[str, Any]]) -> list[Saying]:
    """The inference.logged events that say these rows.

    The rows are rendered here and not by their model, which takes 5 us a row instead of 0.6; a test holds them to it.
    """
    key = InferenceLogged(group=group, rows=()).key
    topic, kind = InferenceLogged.topic.name, InferenceLogged.type()
    return [
        (topic, kind, key, orjson.dumps({"group": group, "rows": entries[start : start + SAID_ROWS]}))
        for start in range(0, len(entries), SAID_ROWS)
    ]


def day_of(number: int) -> date:
    return _FIRST_DAY + timedelta(days=number)


def rendered_anew(row: bytes) -> bytes:
    """The tuple with its JSON as orjson writes it: what a client may send and jsonb does not take is then gone."""
    columns: list[memoryview | bytes | None] = list(rows.fields(memoryview(row)))
    for place, (_, kind) in enumerate(rows.COLUMNS):
        column = columns[place]
        if kind == "jsonb" and column is not None:
            columns[place] = b"\x01" + orjson.dumps(orjson.loads(column[1:]))
        elif kind == "text" and column is not None:
            columns[place] = bytes(column).replace(b"\x00", b"")
    return rows.joined(columns)


def _tags(row: bytes, place: int) -> dict[str, Any]:
    """A row's tags; `place` is where client_request_id begins."""
    place = _skipped(row, place, 2)  # client_request_id, shadow_of
    (length,) = _INT.unpack_from(row, place)
    found: dict[str, Any] = orjson.loads(row[place + 5 : place + 4 + length]) if length > 0 else {}
    return found


def _tripped(group: str, request_id: UUID, notes: Any) -> list[dict[str, Any]]:
    """What guards noted, as guardrail.tripped has it; a field rule may have dropped notes, their names or all."""
    return [
        {
            "group": group,
            "request_id": request_id,
            "guardrail": note["name"],
            "action": note["outcome"],
            "reason": f"{note.get('on')}: {note.get('reason') or note['outcome']}"[:MAX_REASON],
        }
        for note in (notes if isinstance(notes, list) else ())
        if isinstance(note, dict)
        and isinstance(note.get("name"), str)
        and note.get("outcome") in ("blocked", "masked", "flagged")
    ]


def _route_of(tags: dict[str, Any]) -> str:
    """What chose the version, by the row's tags."""
    if tags.get("failed_over"):
        return "failover"
    if "route" in tags and "gave_way" not in tags:
        return "rule"
    return CACHED if tags.get("cache") else BY_WEIGHT


def _charged(answered: Outcome, drawn: Any) -> Outcome | None:
    """What the version did that the weights drew and that did not answer: an error, or no answer until a hedge's.

    Its latency is what the caller waited; tokens and cost are in the row of who answered. None where this is no
    version.
    """
    match drawn:
        case {"urn": str(urn), "version": int(version), "digest": str(digest)}:
            error, status = drawn.get("error"), drawn.get("status")
            if not isinstance(error, str):
                error, status = None, 200
            elif not isinstance(status, int) or status < 400:
                status = 502
            return answered._replace(
                asset=urn, version=version, digest=digest, status=status, error_code=error, score=None,
                tokens_in=None, tokens_out=None, cost=None, route=CHARGED,
            )  # fmt: skip
    return None


def _text(row: bytes, place: int) -> tuple[str | None, int]:
    (length,) = _INT.unpack_from(row, place)
    place += 4
    return (None, place) if length < 0 else (row[place : place + length].decode(), place + length)


def _int4(row: bytes, place: int) -> tuple[int | None, int]:
    (length,) = _INT.unpack_from(row, place)
    return (None, place + 4) if length < 0 else (_INT.unpack_from(row, place + 4)[0], place + 8)


def _skipped(row: bytes, place: int, columns: int) -> int:
    """Where the column after the next few begins."""
    for _ in range(columns):
        (length,) = _INT.unpack_from(row, place)
        place += 4 + max(length, 0)
    return place
