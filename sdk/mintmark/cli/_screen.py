"""What all commands share: one way to fail, one way to print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from mintmark.client import Problem

EXIT_CODES = {401: 4, 403: 4, 404: 3, 409: 5, 412: 5, 428: 5, 422: 6, 504: 7}
# Where nobody looks at it, in a pipe or a file, a table is as wide as it needs to be.
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 250)
hints = Console(stderr=True, soft_wrap=True)


@contextmanager
def failing_in_one_line() -> Iterator[None]:
    """Errors of the server and of the user in one line, with the exit code that scripts can rely on."""
    try:
        yield
    except Problem as problem:
        hints.print(f"mintmark: {problem} ({problem.code})", style="red", markup=False)
        raise typer.Exit(EXIT_CODES.get(problem.status, 1)) from None
    except httpx.TransportError as error:
        hints.print(f"mintmark: no answer ({error}): is it up? `mintmark status` says", style="red", markup=False)
        raise typer.Exit(1) from None
    except (ValueError, OSError) as error:
        hints.print(f"mintmark: {error}", style="red", markup=False)
        raise typer.Exit(2) from None


def show_json(document: Any) -> None:
    """Data for a program or a careful reader."""
    print(json.dumps(document, indent=1, ensure_ascii=False))


def show_table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Rows for a person."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    out.print(table)
