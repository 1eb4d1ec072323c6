"""`mintmark import json`: a model that was described elsewhere, in any JSON, as a version here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import uuid_utils

from mintmark.cli._screen import failing_in_one_line, hints, show_json, show_table
from mintmark.client import Client

FOREIGN = "/registry/v1/foreign"
COLUMNS = ["field", "value", "from", "sure", "by", "why"]
LONGEST = 60


def import_model(
    file: Annotated[Path, typer.Argument(help="a JSON file about a model")],
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="field=/pointer, field=value, or field= to leave it out; may be repeated"),
    ] = None,
    mapping: Annotated[str | None, typer.Option(help="apply this mapping, whatever the file's structure")] = None,
    keep_as: Annotated[str | None, typer.Option(help="keep the corrections under this name for next time")] = None,
    ask: Annotated[bool, typer.Option(help="let a connected model map what the rules leave")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the mapping, and register nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the proposal as JSON")] = False,
) -> None:
    """Show what a foreign file becomes and what is left of it, then register it as a version."""
    with failing_in_one_line(), Client(timeout_s=90) as client:
        corrections = [_correction(one) for one in map_ or []]
        query = {"ask": str(ask).lower()} | ({"mapping": mapping} if mapping else {})
        headers = {"content-type": "application/json", "idempotency-key": str(uuid_utils.uuid7())}
        proposal = client.request("POST", FOREIGN, content=file.read_bytes(), params=query, headers=headers)
        place = f"{FOREIGN}/{proposal['proposal_id']}"
        if corrections:
            proposal = client.request("PATCH", place, json={"fields": corrections})
        _show(proposal, as_json=as_json)
        if dry_run:
            return
        accepted = client.post(f"{place}:accept", {"keep_as": keep_as})
    urn, version = accepted["urn"], accepted["version"]
    hints.print(f"{urn}@{version}" if version else f"{urn}: submission {accepted['submission_id']} waits for its bytes")


def _correction(written: str) -> dict[str, Any]:
    """`field=/pointer`, `field=value` or `field=`. Raises ValueError."""
    field, sign, rest = written.partition("=")
    if not sign or not field:
        raise ValueError(f"--map takes field=/pointer, field=value or field=, not {written!r}")
    if not rest:
        return {"field": field}
    return {"field": field, "source": rest} if rest.startswith("/") else {"field": field, "value": rest}


def _show(proposal: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(proposal)
        return
    rows = [
        {
            "field": one["field"],
            "value": _short(one["value"]) + (f" {one['unit']}" if one["unit"] else ""),
            "from": one["source"] if one["source"] is not None else "",
            "sure": f"{one['confidence']:.0%}",
            "by": one["by"],
            "why": one["reason"],
        }
        for one in proposal["fields"]
    ]
    show_table(rows, COLUMNS)
    if proposal["unmapped"]:
        hints.print("Left, and kept with the version:")
        show_table([{"at": at, "value": _short(value)} for at, value in proposal["unmapped"].items()], ["at", "value"])
    for note in proposal["notes"]:
        hints.print(note, markup=False)


def _short(value: Any) -> str:
    if isinstance(value, dict) and "type" in value and "series" in value:
        points = len(value["x"]["values"]) if value.get("x") else len(value["labels"])
        return f"{value['type']} of {points}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
