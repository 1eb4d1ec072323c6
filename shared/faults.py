"""Named points at which a test makes this process die, as a crash would: between writing, committing and answering.

MINTMARK_CRASH_AT="relay.published:3" kills the process (SIGKILL) when it passes that point for the third time.
Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "inbox.claimed",  # the event is claimed and handled, nothing is committed
    "inbox.committed",  # effect and inbox row are there, the offset is not
    "inbox.flushed",  # a batch's effects are on the disk, the offset is not committed
    "inbox.parked",  # the event waits in the database, the offset is not committed
    "relay.fetched",  # rows were read, nothing is published
    "relay.published",  # Kafka has the events, their rows are still in the outbox
    "parking.handled",  # a parked event was handled, nothing is committed
    "http.committed",  # a request took effect, its answer was not sent
    "worker.claimed",  # a worker holds a piece of work by its lease and has done nothing of it
    "spool.written",  # a gateway's rows are in its spool, their answers were not sent
    "shipper.copied",  # rows are in the transaction, nothing is committed
    "shipper.committed",  # rows and position are there, the spool still has them
    "fold.folded",  # changes of search are in its index and no longer in its log, nothing is committed
    "worker.between",  # a worker finished one step and has not begun the next
)

_name, _, _count = os.environ.get("MINTMARK_CRASH_AT", "").partition(":")
_left = int(_count or 1)

if _name and _name not in POINTS:
    raise ValueError(f"MINTMARK_CRASH_AT names {_name!r}; the points are {', '.join(POINTS)}")


def point(name: str) -> None:
    """Die here, if this is the point and the time."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
