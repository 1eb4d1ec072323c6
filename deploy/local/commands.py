"""`mintmark up|down|status|logs|doctor|env`: arguments in, an installation worked on, something readable out."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from deploy.local.errors import LocalError
from deploy.local.folder import default_data
from deploy.local.installation import Installation, ProcessStatus
from deploy.local.ports import HOST, Ports
from deploy.local.progress import shown_on_stderr

FOLLOW_EVERY_S = 0.3
INTERRUPTED = 130

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Data folder; default MINTMARK_DATA, else .mintmark of the checkout.", show_default=False
    ),
]


def up(
    data: Data = None,
    port: Annotated[
        int | None,
        typer.Option(help="Front port; all others move with it. 0 picks free ones.", show_default="the last, or 8700"),
    ] = None,
    separate: Annotated[bool, typer.Option("--separate", help="One process a service instead of one for all.")] = False,
    infra_only: Annotated[bool, typer.Option("--infra-only", help="Only Kafka and PostgreSQL.")] = False,
) -> None:
    """Start everything on this machine, or what is missing of it, and say where it is."""
    with _errors_in_one_line():
        installation = _installation(data)
        begun = time.monotonic()
        with shown_on_stderr() as progress:
            infrastructure = installation.up(front=port, separate=separate, infra_only=infra_only, progress=progress)
        _summary(installation, infrastructure.ports, infra_only, took_s=time.monotonic() - begun)


def down(data: Data = None) -> None:
    """Stop everything; the data stay."""
    with _errors_in_one_line():
        outcomes = _installation(data).down()
        for name, outcome in outcomes.items():
            print(f"{name}: {outcome}")
        if not outcomes:
            print("Nothing was running.")


def status(
    data: Data = None, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Say what runs. Exit code 0 when everything that was started runs and is ready, else 1."""
    with _errors_in_one_line():
        installation = _installation(data)
        installation.folder.check_version()
        found = installation.status()
        healthy = bool(found) and all(one.state == "running" for one in found)
        if as_json:
            processes = [asdict(one) for one in found]
            print(json.dumps({"data": str(installation.folder.root), "healthy": healthy, "processes": processes}))
        else:
            _show(installation, found)
        if not healthy:
            raise typer.Exit(1)


def logs(
    name: Annotated[str | None, typer.Argument(help="kafka, postgres, services, gateway, …; all without one.")] = None,
    data: Data = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines are written.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="So many last lines of each.")] = 20,
) -> None:
    """Show what the processes write."""
    with _errors_in_one_line():
        installation = _installation(data)
        files = sorted(installation.folder.logs.glob(f"{name or '*'}.log"))
        if not files:
            known = ", ".join(sorted(path.stem for path in installation.folder.logs.glob("*.log")))
            what = f"no log {name!r}" if name else "no log"
            raise LocalError(f"There is {what} in {installation.folder.logs}: {_or_none(known)}.")
        prefixes = {file: "" if name else f"{file.stem}: " for file in files}
        for file, prefix in prefixes.items():
            for line in _last_lines(file, lines):
                print(prefix + line)
        if follow:
            _follow(prefixes)


def doctor(data: Data = None) -> None:
    """Check this machine and the data folder, and say how to fix what is wrong."""
    from deploy.local.doctor import examine

    with _errors_in_one_line():
        findings = []
        for finding in examine(_installation(data)):
            mark = {True: "ok  ", False: "FAIL", None: "-   "}[finding.ok]
            print(f"{mark} {finding.check:<11} {finding.detail}")
            findings.append(finding)
        if any(finding.ok is False for finding in findings):
            raise typer.Exit(1)


def env(data: Data = None) -> None:
    """Print exports for a shell: eval "$(mintmark env)"."""
    with _errors_in_one_line():
        for variable, value in _installation(data).exports().items():
            print(f"export {variable}={shlex.quote(value)}")


def _installation(data: Path | None) -> Installation:
    return Installation(data or default_data())


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """A fault of the machine is one line without a traceback; a fault of ours still shows where it is."""
    try:
        yield
    except LocalError as error:
        print(f"mintmark: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _summary(installation: Installation, ports: Ports, infra_only: bool, took_s: float) -> None:
    print(f"Mintmark is up ({took_s:.1f} s).")
    if not infra_only:
        print(f"  front     http://{HOST}:{ports.front}")
        print(f"  gateway   http://{HOST}:{ports.gateway}, gRPC {HOST}:{ports.grpc}")
    print(f"  kafka     {HOST}:{ports.kafka}")
    print(f"  postgres  {HOST}:{ports.postgres}")
    print(f"  data      {installation.folder.root}")
    which = (
        "" if installation.folder.root == default_data() else f" --data {shlex.quote(str(installation.folder.root))}"
    )
    print(f'Next: eval "$(mintmark env{which})" sets up this shell; then mintmark status, logs, down.')


def _show(installation: Installation, found: list[ProcessStatus]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not found:
        print(f"Nothing runs in {installation.folder.root}: start it with `mintmark up`.")
        return
    table = Table("process", "state", "port", "pid", "MiB", "up", box=None, pad_edge=False)
    for one in found:
        uptime = (
            ""
            if one.uptime_s is None
            else f"{one.uptime_s // 3600}:{one.uptime_s // 60 % 60:02}:{one.uptime_s % 60:02}"
        )
        table.add_row(one.name, one.state, str(one.port or ""), str(one.pid), str(one.memory_mib or ""), uptime)
    Console().print(table)
    if any(one.state == "dead" for one in found):
        print("`mintmark up` starts what is dead again; `mintmark logs NAME` says why it died.")


def _last_lines(file: Path, count: int) -> list[str]:
    if count == 0:
        return []
    return file.read_text(errors="replace").splitlines()[-count:]


def _follow(prefixes: dict[Path, str]) -> None:
    """Print lines as they come, until interrupted; a log that was rotated is read from its new beginning."""
    positions = {file: file.stat().st_size for file in prefixes}
    while True:
        for file, prefix in prefixes.items():
            size = file.stat().st_size if file.exists() else 0
            if size < positions[file]:
                positions[file] = 0
            if size > positions[file]:
                with file.open(errors="replace") as opened:
                    opened.seek(positions[file])
                    for line in opened:
                        print(prefix + line.rstrip("\n"), flush=True)
                    positions[file] = opened.tell()
        time.sleep(FOLLOW_EVERY_S)


def _or_none(known: str) -> str:
    return f"there are {known}" if known else "run `mintmark up` first"
