"""A stranger's program gets so much processor time and memory, inside of the scoring process that runs it."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from services.evaluator.errors import RenderTooLarge

MEMORY_BYTES = 512 * 1024 * 1024
"""Beyond what the process had; as much as the prompts service gives a rendering process."""
GRACE_CPU_S = 2.0
TOO_MUCH = "the template takes more time or memory than it is given; make it simpler, or the values smaller"


class _OutOfTime(BaseException):
    """No template and no library may catch this."""


@contextmanager
def bounded(cpu_s: float) -> Iterator[None]:
    """Ends what runs inside after so much processor time, and lets it have MEMORY_BYTES more. Raises RenderTooLarge.

    A template can keep the interpreter inside of one C function, where no handler of Python's runs; then SIGPROF's
    default action ends the process GRACE_CPU_S later. For the main thread.
    """
    inside = True

    def stop(number: int, frame: FrameType | None) -> None:
        if inside:
            raise _OutOfTime

    before = signal.signal(signal.SIGVTALRM, stop)
    limits = _more_memory()
    try:
        signal.setitimer(signal.ITIMER_PROF, cpu_s + GRACE_CPU_S)
        signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
        yield
    except (_OutOfTime, MemoryError, RecursionError) as error:
        raise RenderTooLarge(TOO_MUCH) from error
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _more_memory() -> tuple[int, int]:
    """Limit the address space; the limits that were. Where nobody says how much there is of it, nothing is limited."""
    soft, hard = limits = resource.getrlimit(resource.RLIMIT_AS)
    sizes = Path("/proc/self/statm")
    if sizes.exists():
        wanted = int(sizes.read_text().split()[0]) * resource.getpagesize() + MEMORY_BYTES
        tightest = min([wanted, *(one for one in (soft, hard) if one != resource.RLIM_INFINITY)])
        resource.setrlimit(resource.RLIMIT_AS, (tightest, hard))
    return limits
