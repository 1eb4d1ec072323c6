"""Who may do what: Cedar on policy files that are validated strictly when they are read. Every error is a deny."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import cedarpy

from shared.errors import Forbidden, MintmarkError
from shared.identity.principal import Principal

Action = Literal[
    "read",
    "submit",
    "evaluate",
    "approve",
    "configure",
    "move",
    "deploy",
    "route",
    "infer",
    "feedback",
    "audit",
    "operate",
]
ACTIONS: tuple[str, ...] = get_args(Action)


class PolicyRefused(MintmarkError):
    """The authorization policies do not fit their schema."""

    code = "policy-refused"


class Authorizer:
    """Decides by the policies in `folder` (the built-in ones without it)."""

    def __init__(self, folder: Path | None = None) -> None:
        root = folder or files("shared.identity").joinpath("policies")
        texts = sorted((entry.name, entry.read_text()) for entry in root.iterdir() if entry.name.endswith(".cedar"))
        self._policies = "\n".join(text for _, text in texts)
        self._schema = files("shared.identity").joinpath("policies/mintmark.cedarschema").read_text()
        # Policies are fixed for the life of the process, so the same question has the same answer.
        self._decide = lru_cache(maxsize=10_000)(self._evaluate)
        verdict = cedarpy.validate_policies(self._policies, self._schema)
        if not verdict.validation_passed:
            raise PolicyRefused(
                f"the policies do not fit the schema: {'; '.join(str(error) for error in verdict.errors)}"[:2000]
            )

    def require(self, principal: Principal, action: Action | str, kind: str, workspace: str | None = None) -> None:
        """Return when `principal` may do `action` on a thing of `kind`. Raises Forbidden with the reason."""
        workspace = principal.workspace if workspace is None else workspace
        allowed, reasons = self._decide(principal.id, principal.roles, principal.workspace, action, kind, workspace)
        if not allowed:
            roles = ", ".join(sorted(principal.roles)) or "no role"
            raise Forbidden(
                f"{principal.id} ({roles}) may not {action} {kind} in workspace {workspace}", policies=list(reasons)
            )

    def _evaluate(
        self, principal: str, roles: frozenset[str], home: str, action: str, kind: str, workspace: str
    ) -> tuple[bool, tuple[str, ...]]:
        subject = {"type": "User", "id": principal}
        thing = {"type": "Thing", "id": kind}
        entities: list[dict[str, Any]] = [
            {
                "uid": subject,
                "attrs": {"workspace": home},
                "parents": [{"type": "Role", "id": role} for role in sorted(roles)],
            },
            {"uid": thing, "attrs": {"workspace": workspace}, "parents": []},
            *({"uid": {"type": "Role", "id": role}, "attrs": {}, "parents": []} for role in sorted(roles)),
        ]
        request = {
            "principal": _uid(subject),
            "action": f'Action::"{action}"',
            "resource": _uid(thing),
            "context": {},
        }
        try:
            answer = cedarpy.is_authorized(request, self._policies, entities, self._schema)
        except Exception:  # whatever it is, nobody is let in by it
            return False, ("the policies could not be evaluated",)
        if answer.diagnostics.errors:
            return False, tuple(map(str, answer.diagnostics.errors))
        return answer.allowed, tuple(answer.diagnostics.reasons)


def _uid(entity: dict[str, str]) -> str:
    text = entity["id"].replace("\\", "\\\\").replace('"', '\\"')
    return f'{entity["type"]}::"{text}"'
