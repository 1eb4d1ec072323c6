"""`python -m services.prompts.rendering.child`: does jobs from stdin until it is closed, or until one is too much.

A job has two seconds of processor time and the process a bounded memory. Both are the kernel's to hold, since a
template can keep the interpreter inside one C function. A frame is four bytes of length and JSON.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any, BinaryIO

# jsonschema builds a grammar of IRIs for `format`, which nothing here checks; where it is installed that takes 2 s.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

from services.prompts.rendering import engine  # noqa: E402

JOB_CPU_S = 2.0
MEMORY_BYTES = 512 * 1024 * 1024


def main() -> None:
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        resource.setrlimit(limit, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    while (job := _read(jobs)) is not None:
        # SIGPROF ends the process; no handler of Python's would run inside of a C function.
        signal.setitimer(signal.ITIMER_PROF, JOB_CPU_S)
        answer = json.dumps(_done(job)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(len(answer).to_bytes(4, "big") + answer)
        answers.flush()


def _read(jobs: BinaryIO) -> Any:
    head = jobs.read(4)
    return json.loads(jobs.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


def _done(job: dict[str, Any]) -> dict[str, Any]:
    try:
        if job["do"] == "analyse":
            return {"used": engine.analyse(job["syntax"], job["texts"], job["schemas"])}
        return {"rendered": engine.render(job["document"], job["variables"])}
    except engine.Refused as refused:
        return {"code": refused.code, "message": str(refused)}
    except (MemoryError, RecursionError) as error:
        return {"code": "render-too-large", "message": f"the template needs too much memory ({type(error).__name__})"}
    except Exception as error:  # a stranger's program may raise anything
        return {"code": "render-refused", "message": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
