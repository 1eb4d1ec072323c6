"""Passwords of the PostgreSQL roles: generated once per data folder, never shown, readable by their owner alone."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local import ports
from deploy.local.cluster import DATABASE
from deploy.local.errors import LocalError
from deploy.local.folder import write_atomically

SERVICES = ("registry", "prompts", "evaluator", "deployer", "router", "policy")
PASSWORD_BYTES = 24


@dataclass(frozen=True)
class Passwords:
    """One password for the admin and one a service role."""

    admin: str
    services: Mapping[str, str]

    @classmethod
    def of(cls, file: Path, *, cluster_exists: bool) -> Passwords:
        """Read the file, or make it for a cluster that is not there yet."""
        try:
            stored = json.loads(file.read_text())
            return cls(admin=stored["admin"], services={name: stored[name] for name in SERVICES})
        except FileNotFoundError as error:
            if cluster_exists:
                raise LocalError(
                    f"{file} is gone though its cluster is there: put it back, or choose another folder with --data."
                ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise LocalError(
                f"{file} is damaged: put back a good copy, or choose another folder with --data."
            ) from error
        fresh = {name: secrets.token_urlsafe(PASSWORD_BYTES) for name in ("admin", *SERVICES)}
        write_atomically(file, json.dumps(fresh, indent=2) + "\n")
        return cls(admin=fresh["admin"], services={name: fresh[name] for name in SERVICES})

    def dsn_of(self, service: str, port: int) -> str:
        """How that service connects; the role itself is made by `python -m services.admin provision`."""
        return f"postgresql://mintmark_{service}:{self.services[service]}@{ports.HOST}:{port}/{DATABASE}"
