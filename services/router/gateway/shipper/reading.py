"""The next batch of a spool, read piece by piece while Postgres takes the one before it."""

from __future__ import annotations

from contextlib import suppress

from services.router.gateway.shipper.batch import Batch
from services.router.gateway.spool.format import Position
from services.router.gateway.spool.reader import SpoolReader, Stretch

PIECE_ROWS = 320
"""About a millisecond and a half: so long the loop does not turn, and as long Postgres takes for so many rows."""


class Reading:
    """What `position` is followed by. `batch` is whole once `finish` has returned."""

    def __init__(self, reader: SpoolReader, position: Position) -> None:
        self.position = position
        self.batch = Batch()
        self._reader = reader
        self._stretch: Stretch | None = None
        self._taken = 0

    def step(self) -> None:
        """Read a piece; what goes wrong is for `finish` to meet, and not for the batch that Postgres is taking."""
        with suppress(Exception):
            self._take(PIECE_ROWS)

    def finish(self) -> Stretch | None:
        """Read what is left; None when there is nothing (yet). Raises OSError."""
        self._take(None)
        return self._stretch

    def _take(self, most: int | None) -> None:
        if self._stretch is None:
            self._stretch = self._reader.read(self.position)
        if self._stretch is not None:
            payloads = self._stretch.payloads[self._taken :][:most]
            self._taken += len(payloads)
            self.batch.add(self._stretch.data, payloads)
