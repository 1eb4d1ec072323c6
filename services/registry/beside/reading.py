"""Reads versions with everything next to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.registry.domain.assets import Version
from services.registry.domain.lineage import Finding
from services.registry.store.versions import version_of
from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class Beside:
    """A version and what stands next to it, each newest first. `bindings` are those that hold.

    `datasets` are those that it was trained and measured on, each with the newest word on whether it may be used;
    `closed_over_by` are other versions that it is part of.
    """

    version: Version
    stage: str
    aliases: tuple[str, ...]
    findings: tuple[Finding, ...]
    bindings: tuple[dict[str, Any], ...]
    datasets: tuple[dict[str, Any], ...]
    closed_over_by: tuple[str, ...]

    def said(self, kind: str) -> list[dict[str, Any]]:
        """What was said of one kind, newest first."""
        return [finding.document for finding in self.findings if finding.kind == kind]

    def newest(self, kind: str) -> dict[str, Any] | None:
        """The newest word of one kind."""
        return next((finding.document for finding in self.findings if finding.kind == kind), None)

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The newest evaluation that came to an end; a failed one is no score."""
        return next((found for found in self.said("evaluation") if "measures" in found), None)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The groups that it serves in now."""
        return [group for group in self.said("group") if group["serves"]]

    @property
    def live(self) -> list[dict[str, Any]]:
        """Groups that it serves in now, then those that it has figures of: its role, its weight, its figures there.

        In a group where it serves no longer it is `former`, with the figures that were last heard of.
        """
        left = {group["group"] for group in self.said("group")}
        found = {group["group"]: {**group, "figures": []} for group in self.groups}
        for figures in self.said("live"):
            named = figures["group"]
            role = "former" if named in left else figures["role"]  # figures may be heard before the group itself
            past = {"group": named, "role": role, "weight_bp": 0, "figures": []}
            found.setdefault(named, past)["figures"].append(figures)
        return list(found.values())


class Besides:
    """`queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def of(self, tx: Transaction, versions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Beside]:
        """Versions by URN and number; those that are not there are missing. One round trip however many."""
        asked = sorted(set(versions))
        if not asked:
            return {}
        urns, numbers = zip(*asked, strict=True)
        rows = self._queries.beside(tx.connection, workspace=tx.workspace, urns=urns, versions=numbers)
        return {(row["urn"], row["version"]): _beside(row) async for row in rows}

    async def pointed(self, tx: Transaction, aliases: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Where aliases point, by URN and alias; those that point nowhere are missing."""
        asked = sorted(set(aliases))
        if not asked:
            return {}
        urns, names = zip(*asked, strict=True)
        rows = self._queries.pointed(tx.connection, workspace=tx.workspace, urns=urns, aliases=names)
        return {(row["urn"], row["alias"]): row["after"] async for row in rows}


def _beside(row: Any) -> Beside:
    urn, number = row["urn"], row["version"]
    findings = tuple(
        Finding(said["kind"], said["id"], urn, number, datetime.fromisoformat(said["at"]), said["document"])
        for said in row["findings"]
    )
    return Beside(
        version_of(row),
        row["stage"],
        tuple(row["aliases"]),
        findings,
        tuple(row["bindings"]),
        tuple(row["datasets"]),
        tuple(row["closed_over_by"]),
    )
