"""What a process keeps of the folded index: bounded by bytes, the longest unused goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class Cache:
    """Keys begin with the workspace, so that nothing of one is ever given to another."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """What was put under the key; None where it is not there (any more)."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of so many bytes. It is never changed afterwards: somebody may be reading it."""
        before = self._kept.pop(key, None)
        self.bytes += size - (before[1] if before else 0)
        self._kept[key] = (value, size)
        while self.bytes > self.most_bytes and len(self._kept) > 1:
            _, (_, freed) = self._kept.popitem(last=False)
            self.bytes -= freed

    def __len__(self) -> int:
        return len(self._kept)
