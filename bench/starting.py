"""`make bench-starting`: processor time and memory that each process takes until it can begin, in a fresh interpreter.

Nothing is asked of a database or a broker: a service is built, any other process has its modules imported. Interpreters
of different processes alternate; the median of the rounds counts. tests/architecture/test_imports.py says which large
libraries may be loaded by then.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from bench import report
from shared.events import SERVICES

BUILT = "import services.__main__; from shared.testing.declared import built; built({!r})"
PROCESSES = {
    **{name: BUILT.format(name) for name in SERVICES},
    "gateway": "import services.router.gateway.__main__",
    "shipper": "import services.router.gateway.shipper.__main__",
    "guard worker": "import services.router.gateway.guardrails.worker",
    "model server": "import services.deployer.model_server.__main__",
    "front": "import deploy.local.front",
    "mintmark": "import mintmark.cli.main",
}


def start(code: str) -> tuple[float, float]:
    """Processor seconds, of user and kernel, and the most memory in MiB."""
    process = subprocess.Popen([sys.executable, "-c", f"import sys; sys.modules['httpx._main'] = None; {code}"])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"this did not start: {code}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for code in PROCESSES.values():
        start(code)  # writes the bytecode
    taken = [{name: start(code) for name, code in PROCESSES.items()} for _ in range(rounds)]
    rows = [
        {
            "process": name,
            "cpu_ms": round(statistics.median(one[name][0] for one in taken) * 1000),
            "memory_mib": round(statistics.median(one[name][1] for one in taken)),
        }
        for name in PROCESSES
    ]
    report.write("starting", rows, {"rounds": rounds})


if __name__ == "__main__":
    main()
