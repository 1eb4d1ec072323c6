"""`mintmark prompts`: publish, read, label and keep prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from mintmark.cli._screen import failing_in_one_line, hints, show_json
from mintmark.client import Client

app = typer.Typer(no_args_is_help=True, help="Prompts, their versions and labels.")
Title = Annotated[str, typer.Argument(help="title or name of the prompt")]
ALL = "/prompts/v1/prompts"


def _at(title: str, rest: str = "") -> str:
    return f"{ALL}/{quote(title, safe='')}{rest}"


@app.command("list")
def listed() -> None:
    """Show every prompt."""
    with failing_in_one_line(), Client() as client:
        token: str | None = None
        while True:
            page = client.get(ALL, page_size=500, page_token=token)
            for one in page["items"]:
                print(f"{one['title']}\t{one['last_version']}\t{' '.join(one['tags'])}".rstrip())
            token = page["next_page_token"]
            if token is None:
                return


@app.command()
def show(
    title: Title,
    label: Annotated[str | None, typer.Option(help="latest without one")] = None,
    version: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Print one version."""
    with failing_in_one_line(), Client() as client:
        show_json(client.get(_at(title), label=label, version=version))


@app.command()
def publish(
    title: Title,
    file: Annotated[Path, typer.Argument(help="a text, or a .json file with all of a version's content")],
    message: Annotated[str, typer.Option("--message", "-m", help="why")] = "",
    label: Annotated[list[str] | None, typer.Option(help="label that moves to the version; may be repeated")] = None,
) -> None:
    """Publish the next version."""
    with failing_in_one_line(), Client() as client:
        content: Any = json.loads(file.read_text()) if file.suffix == ".json" else {"text": file.read_text()}
        made = client.post(_at(title, "/versions"), {**content, "commit_message": message, "labels": label or []})
    hints.print(f"{made['title']}@{made['version']} {made['digest']}")


@app.command()
def label(
    title: Title,
    name: Annotated[str, typer.Argument(help="the label")],
    version: Annotated[int, typer.Argument()],
    reason: Annotated[str, typer.Option("--reason", "-m")] = "",
) -> None:
    """Point a label at a version."""
    with failing_in_one_line(), Client() as client:
        # Whoever types this decides on what they saw, not on a state that they could name.
        moved = client.put(_at(title, f"/labels/{name}"), {"version": version, "reason": reason}, if_match="*")
    hints.print(f"{name}: {moved['before']} → {moved['after']}")


@app.command()
def rollback(
    title: Title,
    name: Annotated[str, typer.Argument(help="the label")],
    reason: Annotated[str, typer.Option("--reason", "-m")],
) -> None:
    """Point a label back at where it pointed before its last move."""
    with failing_in_one_line(), Client() as client:
        moved = client.post(_at(title, f"/labels/{name}/rollback"), {"reason": reason})
    hints.print(f"{name}: {moved['before']} → {moved['after']}")


@app.command()
def diff(title: Title, before: Annotated[int, typer.Argument()], after: Annotated[int, typer.Argument()]) -> None:
    """Show how two versions differ."""
    with failing_in_one_line(), Client() as client:
        print(client.get(_at(title, "/diff"), before=before, after=after)["diff"])


@app.command()
def snapshot(
    file: Annotated[Path, typer.Argument(help="where to write it")],
    label: Annotated[list[str] | None, typer.Option(help="only these labels; may be repeated")] = None,
    trust: Annotated[Path | None, typer.Option(help="trust file with `prompts`", envvar="MINTMARK_TRUST_FILE")] = None,
) -> None:
    """Write every labelled prompt to one signed file, for applications that must start with everything down."""
    from mintmark.prompts import Prompts

    with failing_in_one_line(), Prompts(trust=trust) as prompts:
        made = prompts.save_snapshot(file, *(label or ()))
    hints.print(f"workspace {made.workspace} as of {made.at} in {file}")
