"""The catalog as Parquet; see `exporting`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("urn", pa.string()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("title", pa.string()),
        ("version", pa.int32()),
        ("number", pa.int64()),
        ("digest", pa.string()),
        ("stage", pa.string()),
        ("aliases", pa.list_(pa.string())),
        ("task", pa.string()),
        ("licence", pa.string()),
        ("description", pa.string()),
        ("tags", pa.map_(pa.string(), pa.string())),
        ("metrics", pa.map_(pa.string(), pa.float64())),
        ("author", pa.string()),
        ("author_proven", pa.bool_()),
        ("artefact_digest", pa.string()),
        ("artefact_format", pa.string()),
        ("artefact_size", pa.int64()),
        ("run_id", pa.string()),
        ("dataset", pa.string()),
        ("base", pa.list_(pa.string())),
        ("registered_at", pa.timestamp("us", "UTC")),
        ("updated_at", pa.timestamp("us", "UTC")),
        ("content", pa.string()),
    ]
)
"""One row a version; `content` is the JSON that the digest covers."""


class Parquet:
    """A row group a page; the footer comes last, so that a file that was cut off cannot be read as a whole one."""

    def __init__(self) -> None:
        self._written = _Taken()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._written, mode="w"), SCHEMA, compression="zstd")

    def page(self, rows: Sequence[dict[str, Any]]) -> bytes:
        self._writer.write_table(pa.Table.from_pylist([_mapped(row) for row in rows], SCHEMA))
        return self._written.take()

    def end(self) -> bytes:
        self._writer.close()
        return self._written.take()


def _mapped(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "tags": list(row["tags"].items()), "metrics": list(row["metrics"].items())}


class _Taken:
    """A file that gives away what was written since it was last asked."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken
