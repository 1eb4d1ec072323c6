"""Reads what a version stands on, level by level, so that the number of queries is the depth and not the breadth."""

from __future__ import annotations

from typing import Any

from services.registry.licences.closure import MOST_PARTS, Closure, Need, Part, Path, Reached, Step, needs
from shared.db.database import Transaction


class Closures:
    """`queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    async def of(self, tx: Transaction, urn: str, version: int) -> Closure | None:
        """A version and all that it stands on; None where there is no such version."""
        found = await self._parts(tx, [Need("base", urn, version)], 0)
        if not found:
            return None
        root = found[urn, version]
        seen: dict[str, Reached] = {root.node: Reached(root, ())}
        missing: list[Path] = []
        uses: dict[tuple[str, str], None] = {}
        level, truncated = [Reached(root, ())], False
        while level and not truncated:
            wanted = [(reached, need) for reached in level for need in needs(reached.part)]
            parts = await self._parts(tx, [need for _, need in wanted], root.number) if wanted else {}
            level = []
            for reached, need in wanted:
                part = parts.get((need.urn, need.version))
                if part is None:
                    node = need.urn if need.version is None else f"{need.urn}@{need.version}"
                    missing.append((*reached.path, Step(need.relation, node)))
                    continue
                uses[reached.part.node, part.node] = None
                if part.node not in seen:
                    seen[part.node] = Reached(part, (*reached.path, Step(need.relation, part.node)))
                    level.append(seen[part.node])
            truncated = len(seen) > MOST_PARTS
        return Closure(root, tuple(seen.values())[1:], tuple(missing), tuple(uses), truncated)

    async def _parts(self, tx: Transaction, asked: list[Need], before: int) -> dict[tuple[str, int | None], Part]:
        exact = sorted({(need.urn, need.version) for need in asked if need.version is not None})
        newest = sorted({need.urn for need in asked if need.version is None})
        found: dict[tuple[str, int | None], Part] = {}
        if exact:
            urns, versions = zip(*exact, strict=True)
            rows = self._sql.parts(tx.connection, workspace=tx.workspace, urns=urns, versions=versions)
            found |= {(row["urn"], row["version"]): _part(row) async for row in rows}
        if newest:
            rows = self._sql.newest_parts(tx.connection, workspace=tx.workspace, urns=newest, before=before)
            found |= {(row["urn"], None): _part(row) async for row in rows}
        return found


def _part(row: Any) -> Part:
    return Part(
        urn=row["urn"],
        version=row["version"],
        digest=row["digest"],
        number=row["number"],
        content=row["content"],
        description=row["description"],
        tags=row["tags"],
        metrics=row["metrics"],
        author=row["author"],
        registered_at=row["registered_at"],
        artefact_size=row["artefact_size"],
    )
