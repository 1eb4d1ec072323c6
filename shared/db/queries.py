"""A service's named SQL (queries.sql), read with aiosql; each query is awaited with the transaction's connection."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import aiosql


def load(package: str) -> Any:
    """The queries of `<package>/queries.sql`, as attributes. Checked here: names that stand twice, missing file."""
    text = files(package).joinpath("queries.sql").read_text()
    return aiosql.from_str(text, "asyncpg", mandatory_parameters=False)
