"""`python -m deploy.secrets FOLDER`: every secret of an installation as files, one folder a process that may read it.

Compose mounts each folder into its process; in Kubernetes each folder becomes one Secret (docs/how-to/kubernetes.md).
A file that is there is kept, so that this may run before every start; delete one to have it made anew.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from deploy.local.errors import LocalError, explaining_os_errors
from deploy.local.folder import DataFolder, write_atomically
from deploy.local.identity import SIGNERS, ensure_keys
from shared.events import SERVICES

ADMIN = "mintmark_admin"
MADE = ".made"
"""Hidden, so that `FOLDER/*` names the folders that become Secrets and nothing else."""


def ensure(root: Path, database: str) -> list[Path]:
    """Make what is missing; returns every file. `database` is `host:port/name`, options may follow after a `?`."""
    with explaining_os_errors(root):
        (root / MADE / "secrets").mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = ensure_keys(DataFolder(root / MADE))
        token = keys.model_server_token.read_text()
        _keep(root / "postgres" / "password", _password())
        _keep(root / "admin" / "dsn", _dsn(ADMIN, (root / "postgres" / "password").read_text(), database))
        for service in SERVICES:
            _keep(root / service / "dsn", _dsn(f"mintmark_{service}", _password(), database))
        for signer in SIGNERS:
            _keep(root / signer / "signing-key.pem", keys.signing_key(signer).read_text())
        _keep(root / "router" / "master-key.json", keys.master_key.read_text())
        _keep(root / "deployer" / "token", token)
        _keep(root / "model-server" / "token", token)
        _keep(root / "keys" / "keys.json", keys.api_keys.read_text())
        _keep(root / "keys" / "trust.json", keys.trust.read_text())
        _keep(root / "owner" / "owner.json", keys.owner.read_text())
        return [file for folder in root.iterdir() if folder.is_dir() for file in (folder, *folder.rglob("*"))]


def _keep(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    if not file.exists():
        write_atomically(file, text)


def _password() -> str:
    return secrets.token_urlsafe(24)  # letters, digits, - and _: as they are in an address


def _dsn(user: str, password: str, database: str) -> str:
    return f"postgresql://{user}:{password}@{database}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.secrets", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--database", default="postgres:5432/mintmark", help="host:port/name as services reach it")
    parser.add_argument("--uid", type=int, help="give the files to this user (as root)")
    parser.add_argument("--postgres-uid", type=int, help="give the administrator's password to this user (as root)")
    options = parser.parse_args()
    try:
        files = ensure(options.folder, options.database)
        for file in files:
            uid = options.postgres_uid if "postgres" in file.relative_to(options.folder).parts else options.uid
            if uid is not None:
                os.chown(file, uid, uid)
    except (LocalError, OSError) as error:
        print(f"mintmark: {error}", file=sys.stderr)
        return 1
    print(f"secrets: in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
