"""Looks for what is there already: near versions, judged by what stands next to them."""

from __future__ import annotations

from services.registry.beside.reading import Beside, Besides
from services.registry.licences.obligations import judge
from services.registry.licences.store import Closures
from services.registry.reuse.candidates import Candidates
from services.registry.reuse.store import Reuse
from services.registry.reuse.wishes import Candidate, Evidence, Licence, User, Wish, judged, ranked
from shared.db.database import Transaction

MOST_NEAR = 300
"""Versions that are looked at; an asset may have many of them, and is shown once."""
MOST_SHOWN = 10


class Looking:
    """Every asset is shown by the version that is best taken, with what speaks for it and against it."""

    def __init__(self, candidates: Candidates, reuse: Reuse, besides: Besides, closures: Closures) -> None:
        self._candidates = candidates
        self._reuse = reuse
        self._besides = besides
        self._closures = closures

    async def look(self, tx: Transaction, wish: Wish, most: int = MOST_SHOWN) -> list[Candidate]:
        """The nearest assets, those that nothing speaks against first."""
        near = await self._candidates.near(tx, wish, MOST_NEAR)
        numbers = [one.number for one in near]
        assets = await self._reuse.assets_of(tx, numbers)
        nearest: dict[str, tuple[float, tuple[str, ...]]] = {}
        for one in near:
            if assets[one.number] not in nearest:
                nearest[assets[one.number]] = (one.relevance, one.why)
        kept = list(nearest)[: 2 * most]
        stand_ins = await self._reuse.stand_ins(tx, [one.number for one in near if assets[one.number] in kept])
        found = await self._besides.of(tx, stand_ins.items())
        made = [judged(wish, await self._evidence(tx, beside), *nearest[urn]) for (urn, _), beside in found.items()]
        return ranked(made)[:most]

    async def _evidence(self, tx: Transaction, beside: Beside) -> Evidence:
        version, classes = beside.version, beside.newest("classification") or {}
        users = [User(kind="group", name=one["group"], detail=one["role"]) for one in beside.groups]
        users += [User(kind="consumer", name=one["consumer"], detail=one["purpose"]) for one in beside.bindings]
        return Evidence(
            urn=version.urn,
            version=version.ref.version,
            title=version.title,
            task=version.content["task"],
            tags=version.tags,
            stage=beside.stage,
            registered_at=version.registered_at,
            evaluation=beside.evaluation,
            gate=(beside.newest("gate") or {}).get("verdict"),
            risk=classes.get("risk"),
            cost=classes.get("cost"),
            licence=await self._licence(tx, beside),
            users=tuple(users),
        )

    async def _licence(self, tx: Transaction, beside: Beside) -> Licence:
        ref = beside.version.ref
        closure = await self._closures.of(tx, ref.urn, ref.version)
        assert closure is not None
        found = judge(closure)
        own = found.declared.alternatives if found.declared else ()
        return Licence(
            declared=beside.version.content["licence"],
            effective=found.effective,
            commercial=found.commercial,
            alternatives=tuple(tuple(terms.key for terms in one) for one in own),
            conflicts=tuple(one.reason for one in found.conflicts if one.severity == "conflict")[:10],
            gaps=tuple(f"{gap.node}: {gap.reason}" for gap in found.gaps)[:10],
        )
