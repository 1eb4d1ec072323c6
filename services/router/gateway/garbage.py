"""How often the processes of the data plane look for circles of objects: seldom, since they make none."""

from __future__ import annotations

import gc

AFTER = 20_000
"""Objects between two looks; the default of 700 cost a gateway 3 % of its time."""


def look_seldom() -> None:
    """Said once the process is set up: what is here now stays, and no look goes over it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(AFTER)
