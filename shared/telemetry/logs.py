"""Structured logs: one JSON object a line on stdout, with the trace it belongs to."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from opentelemetry import trace

_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
MOST_LINES = 1000
"""How many different lines are remembered; messages may hold numbers, so there may be any number."""


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, trace_id and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = f"{span.trace_id:032x}"
        line.update({name: value for name, value in record.__dict__.items() if name not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class Once(logging.Filter):
    """Of a library that says the same again and again, the line once in `every_s` seconds.

    While the broker is away, aiokafka says so hundreds of times a second. A line that comes after others were held back
    says how many, in `repeated`. A line is the same when its logger, level and whole message are.
    """

    def __init__(self, library: str, *, every_s: float = 30, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._library = logging.Filter(library)
        self._every_s = every_s
        self._clock = clock
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._library.filter(record):
            return True
        now, line = self._clock(), (record.name, record.levelno, record.getMessage())
        said_at, held_back = self._said.get(line, (now - self._every_s, 0))
        if now - said_at < self._every_s:
            self._said[line] = (said_at, held_back + 1)
            return False
        if held_back:
            record.repeated = held_back
        if len(self._said) >= MOST_LINES:
            self._said.clear()
        self._said[line] = (now, 0)
        return True


def start(level: str = "INFO") -> None:
    """Send all logs of this process to stdout as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Once("aiokafka"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiokafka", "uvicorn.access", "httpx", "faststream", "botocore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
