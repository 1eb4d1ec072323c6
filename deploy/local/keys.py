"""`mintmark keys`: who may call and sign. Keys are kept as hashes; a secret is shown once, when it is made."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from deploy.local.folder import default_data
from shared.clock import utc_now
from shared.identity.keys import ApiKey, append, remove

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")

Data = Annotated[
    Path | None, typer.Option("--data", help="Data folder; default as for `mintmark up`.", show_default=False)
]


def keys_file(data: Path | None) -> Path:
    """MINTMARK_KEYS_FILE, else the data folder's. Ends with one line where there is none."""
    if given := os.environ.get("MINTMARK_KEYS_FILE"):
        return Path(given)
    path = (data or default_data()) / "secrets" / "keys.json"
    if not path.exists():
        print(f"mintmark: there is no installation in {path.parents[1]}: run `mintmark up` first.", file=sys.stderr)
        raise typer.Exit(1)
    return path


@app.command()
def create(
    principal: Annotated[str, typer.Argument(help="Whose key, e.g. user:bea or pipeline:credit-train.")],
    role: Annotated[
        list[str], typer.Option(help="publisher, approver, release-manager, caller, viewer, auditor, operator, owner.")
    ],
    workspace: Annotated[str, typer.Option()] = "default",
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, help="Without it the key lives until it is revoked.")
    ] = None,
    data: Data = None,
) -> None:
    """Make a key and print its id and secret as JSON; services take it within a second."""
    path = keys_file(data)
    until = utc_now() + timedelta(days=expires_in_days) if expires_in_days else None
    secret, record = ApiKey.generate(principal, role, workspace, expires_at=until)
    append(path, record)
    print(json.dumps({"api_key_id": record["id"], "api_key": secret, "principal": principal, "roles": record["roles"]}))


@app.command()
def ls(data: Data = None) -> None:
    """List the keys in force, without anything secret."""
    for record in json.loads(keys_file(data).read_text()):
        until = record["expires_at"] or "never"
        who = f"{record['id']}  {record['principal']:28} {record['workspace']:12}"
        print(f"{who} {','.join(record['roles'])}, expires {until}")


@app.command()
def revoke(key_id: str, data: Data = None) -> None:
    """Take a key out of force."""
    if not remove(keys_file(data), key_id):
        print(f"mintmark: there is no key {key_id}: `mintmark keys ls` lists them.", file=sys.stderr)
        raise typer.Exit(3)
    print(f"{key_id} is revoked")
