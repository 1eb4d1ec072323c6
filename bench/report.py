"""Results as JSON in bench/results and as a table on the screen."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, by linear interpolation."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def summary(values_ms: Sequence[float]) -> dict[str, float]:
    """n, p50, p99 and mean of durations in milliseconds."""
    return {
        "n": len(values_ms),
        "p50_ms": round(percentile(values_ms, 0.5), 3),
        "p99_ms": round(percentile(values_ms, 0.99), 3),
        "mean_ms": round(statistics.fmean(values_ms), 3),
    }


def write(name: str, rows: list[dict[str, Any]], notes: dict[str, Any] | None = None) -> Path:
    """Keep the rows as bench/results/<name>.json and print them."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    path.write_text(json.dumps({"at": at, "machine": machine, "notes": notes or {}, "rows": rows}, indent=1) + "\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    widths = {column: max(len(column), *(len(_text(row.get(column))) for row in rows)) for column in columns}
    print("  ".join(column.ljust(widths[column]) for column in columns))
    for row in rows:
        print("  ".join(_text(row.get(column)).ljust(widths[column]) for column in columns))
    for key, value in (notes or {}).items():
        print(f"{key}: {value}")
    return path


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
