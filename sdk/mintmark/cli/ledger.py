"""`mintmark ledger`: export the ledger of every event, and verify it offline."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from mintmark import ledger_verifier as verifier
from mintmark.cli._screen import failing_in_one_line, hints, show_json
from mintmark.client import Client, Problem
from mintmark.settings import Connection

EXPORT = "/policy/v1/ledger/export"
BAD = 1

app = typer.Typer(no_args_is_help=True, help="The hash-chained record of every event.")


@app.command()
def verify(
    file: Annotated[str | None, typer.Argument(help="an export; - reads stdin; without it the server's")] = None,
    url: Annotated[str | None, typer.Option(help="verify what this server exports")] = None,
    trust: Annotated[Path | None, typer.Option(help="trust file with `policy`", envvar="MINTMARK_TRUST_FILE")] = None,
    key: Annotated[str | None, typer.Option(help="the policy service's public key, base64")] = None,
    head: Annotated[list[Path] | None, typer.Option(help="a signed head kept elsewhere; may be repeated")] = None,
) -> None:
    """Say whether every entry is as it was recorded; exit code 1 names the first bad one."""
    with failing_in_one_line():
        keys = verifier.keys_of(trust or _local_trust(), key)
        witnesses = verifier.witnesses_of(head or [], keys)
        with _lines(file, url) as lines:
            finding = verifier.verify(lines, keys, witnesses)
    print(verifier.sentence(finding, keys is not None))
    if not finding.holds:
        raise typer.Exit(BAD)


@app.command()
def export(file: Annotated[Path, typer.Argument(help="where to write the JSON lines")]) -> None:
    """Write every entry and the signed head to a file."""
    with failing_in_one_line(), _lines(None, None) as lines, file.open("wb") as out:
        count = sum(bool(out.write(line + b"\n")) for line in lines)
    hints.print(f"{count - 1} entries and the signed head in {file}")


@app.command()
def head() -> None:
    """Print the signed head: keep it elsewhere, and `verify --head` shows a ledger that was rewritten since."""
    with failing_in_one_line(), Client() as client:
        show_json(client.get("/policy/v1/ledger/head"))


@contextmanager
def _lines(file: str | None, url: str | None) -> Iterator[Iterable[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
    elif file is not None:
        with Path(file).open("rb") as opened:
            yield opened
    else:
        with _exported(url) as lines:
            yield lines


@contextmanager
def _exported(url: str | None) -> Iterator[Iterable[bytes]]:
    """The server's export, line by line, so that a ledger of any size needs no room."""
    connection = Connection.find()
    headers = {"authorization": f"Bearer {connection.api_key}"} if connection.api_key else {}
    address = (url or connection.url).rstrip("/") + EXPORT
    with httpx.stream("GET", address, headers=headers, timeout=60) as answer:
        if answer.is_error:
            answer.read()
            document = answer.json() if "json" in answer.headers.get("content-type", "") else {"detail": answer.text}
            raise Problem(answer.status_code, document)
        # httpx ends lines at U+2028 and the like too, which JSON may hold; bytes end at \n alone.
        yield _split(answer.iter_bytes())


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _local_trust() -> Path | None:
    """The trust file of a local installation, if it is the one in use."""
    found = Path(os.environ.get("MINTMARK_DATA", ".mintmark")) / "secrets" / "trust.json"
    return found if found.is_file() else None
