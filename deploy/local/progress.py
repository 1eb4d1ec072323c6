"""What a person sees while something takes longer than a second: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

Report = Callable[[int, int], None]
"""Called with (done, total) when a step knows how far it is."""

ANNOUNCE_AFTER_S = 1.0


class Progress(Protocol):
    """Where the slow parts say what they are doing; steps may run side by side in threads."""

    def step(self, title: str) -> AbstractContextManager[Report]: ...


class Silent:
    """Says nothing."""

    def step(self, title: str) -> AbstractContextManager[Report]:
        return nullcontext(lambda done, total: None)


class PlainLines:
    """For logs and pipes: one line when a step has lasted a second, one more when it is done."""

    @contextmanager
    def step(self, title: str) -> Iterator[Report]:
        begun = time.monotonic()
        announcement = threading.Timer(ANNOUNCE_AFTER_S, _say, [f"{title} …"])
        announcement.daemon = True
        announcement.start()
        try:
            yield lambda done, total: None
        except BaseException:
            announcement.cancel()
            raise
        announcement.cancel()
        if (took_s := time.monotonic() - begun) >= ANNOUNCE_AFTER_S:
            _say(f"{title}: done in {took_s:.1f} s")


class Bars:
    """For a terminal: a live bar a step, gone when all is done. Use as a context manager around all steps."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._display = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )

    @contextmanager
    def step(self, title: str) -> Iterator[Report]:
        task = self._display.add_task(title, total=None)
        try:
            yield lambda done, total: self._display.update(task, completed=done, total=total)
        finally:
            self._display.remove_task(task)

    def __enter__(self) -> Bars:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()


@contextmanager
def shown_on_stderr() -> Iterator[Progress]:
    """Bars when standard error is a terminal, plain lines otherwise; standard output stays for results."""
    if sys.stderr.isatty():
        with Bars() as bars:
            yield bars
    else:
        yield PlainLines()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
