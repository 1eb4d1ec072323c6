"""The index answers exactly what asking every version answers, whatever was added, changed and folded in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.registry.search import evaluating, facets, ordering
from services.registry.search.cache import Cache
from services.registry.search.facts import Found, name_terms, tag_term, term
from services.registry.search.folding import Fold
from services.registry.search.grammar import parse
from services.registry.search.index import Index
from services.registry.search.ordering import Row, read_order
from services.registry.search.view import Reader
from shared.db.database import Database
from shared.db.queries import load
from shared.testing.backing import Backing
from shared.testing.installation import Installation

from .plain import Plain, holds, ordered

AT = datetime(2026, 11, 20, tzinfo=UTC)
NUMBERS = [1, 2, 3, 65_534, 65_535, 65_536, 65_537, 200_000, 200_001]
NAMES = ["credit", "Credit-PD", "churn_v2", "churn.v3", "zebra", "ärger"]
TEAMS = ["labour", "credit", "x'y", 'q"=1']
WORDS = ["employ", "loan", "risk"]
MEASURED = ["auc", "loss"]

names, teams, numbers = st.sampled_from(NAMES), st.sampled_from(TEAMS), st.sampled_from(NUMBERS)
values = st.sampled_from([-1.0, 0.0, 0.5, 0.5000001, 1e300])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


comparisons = st.one_of(
    st.builds(lambda s, v: f"stage {s} {quoted(v)}", st.sampled_from(["=", "!="]),
              st.sampled_from(["staging", "retired"])),
    st.builds(lambda s, v: f"tags.team {s} {quoted(v)}", st.sampled_from(["=", "!="]), teams),
    st.builds(lambda vs: f"tags.team IN ({', '.join(map(quoted, vs))})", st.lists(teams, min_size=1, max_size=3)),
    st.builds(lambda n, s, p: f"{n} {s} {quoted(p)}", st.sampled_from(["name", "tags.team", "alias"]),
              st.sampled_from(["LIKE", "ILIKE", "NOT LIKE"]),
              st.sampled_from(["c%", "%r%", "CREDIT%", "churn_v_", "%", "Ä%", "%e%r", "credit", "_"])),
    st.builds(lambda n, s, v: f"metrics.{n} {s} {v!r}", st.sampled_from(MEASURED),
              st.sampled_from(["<", "<=", "=", "!=", ">=", ">"]), values),
    st.builds(lambda f, n: f"{f} IS {n}NULL", st.sampled_from(["tags.team", "metrics.auc", "alias", "task", "stage"]),
              st.sampled_from(["", "NOT "])),
    st.builds(lambda a: f"alias = {quoted(a)}", st.sampled_from(["champion", "b"])),
    st.builds(lambda n: f"name = {quoted(n)}", names),
)  # fmt: skip
filters = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(lambda a, b: f"({a} AND {b})", inner, inner),
        st.builds(lambda a, b: f"({a} OR {b})", inner, inner),
        st.builds(lambda a: f"NOT {a}", inner),
    ),
    max_leaves=6,
)
orders = st.sampled_from(["", "name", "name DESC", "metrics.auc", "metrics.auc ASC", "created ASC", "version"])
steps = st.one_of(
    st.tuples(st.just("add"), numbers, names, st.none() | teams, st.dictionaries(st.sampled_from(MEASURED), values),
              st.sets(st.sampled_from(WORDS))),
    st.tuples(st.just("stage"), numbers, st.sampled_from(["staging", "retired", "development"])),
    st.tuples(st.just("team"), numbers, st.none() | teams),
    st.tuples(st.just("alias"), numbers, st.sampled_from(["champion", "b"]), st.booleans()),
    st.tuples(st.just("measure"), numbers, st.sampled_from(MEASURED), st.none() | values),
    st.tuples(st.just("rename"), numbers, names),
    st.tuples(st.just("words"), numbers, st.sets(st.sampled_from(WORDS))),
    st.tuples(st.just("fold"), st.integers(1, 4)),
    st.tuples(st.just("ask"), filters, orders),
)  # fmt: skip


@dataclass
class Catalog:
    """The same versions twice: in the index, and plainly."""

    database: Database
    workspace: str
    index: Index
    fold: Fold
    reader: Reader
    plain: dict[int, Plain] = field(default_factory=dict)

    async def play(self, step: tuple[Any, ...]) -> None:
        what, *given = step
        if what == "fold":
            async with self.database.begin(self.workspace) as tx:
                await self.fold.fold(tx, given[0])
        elif what == "ask":
            await self.check(*given)
        elif what == "add":
            if given[0] not in self.plain:
                await self._add(*given)
        elif given[0] in self.plain:
            async with self.database.begin(self.workspace) as tx:
                await getattr(self, f"_{what}")(tx, given[0], self.plain[given[0]], *given[1:])

    async def _add(self, number: int, name: str, team: str | None, measured: dict[str, float], words: set[str]) -> None:
        terms = [*name_terms("plain-name", name), term("stage", "development"), term("kind", "model")]
        terms += [tag_term("team", team)] if team is not None else []
        said = {f'metric:"{key}"': value for key, value in measured.items()}
        async with self.database.begin(self.workspace) as tx:
            await self.index.add(
                tx, number, Found(tuple(terms), " ".join(words), AT, said, f"about {name}"), number % 3
            )
        one = self.plain[number] = Plain({"name": {"plain-name", name}, "stage": {"development"}, "kind": {"model"}})
        one.numbers |= {**said, "created": AT.timestamp() * 1000, "version": number % 3}
        one.words, one.label = set(words), name
        if team is not None:
            one.values['tag:"team"'] = {team}

    async def _stage(self, tx: Any, number: int, one: Plain, stage: str) -> None:
        gone = [term("stage", value) for value in one.values["stage"]]
        await self.index.change(tx, number, gone=gone, come=[term("stage", stage)])
        one.values["stage"] = {stage}

    async def _team(self, tx: Any, number: int, one: Plain, team: str | None) -> None:
        gone = [tag_term("team", value) for value in one.values.get('tag:"team"', set())]
        come = [] if team is None else [tag_term("team", team)]
        await self.index.change(tx, number, gone=gone, come=come)
        one.values['tag:"team"'] = set() if team is None else {team}

    async def _alias(self, tx: Any, number: int, one: Plain, alias: str, there: bool) -> None:
        said = [term("alias", alias)]
        await self.index.change(tx, number, gone=[] if there else said, come=said if there else [])
        (one.values.setdefault("alias", set()).add if there else one.values.setdefault("alias", set()).discard)(alias)

    async def _measure(self, tx: Any, number: int, one: Plain, key: str, value: float | None) -> None:
        await self.index.change(tx, number, numbers={f'metric:"{key}"': value})
        one.numbers.pop(f'metric:"{key}"', None)
        if value is not None:
            one.numbers[f'metric:"{key}"'] = value

    async def _rename(self, tx: Any, number: int, one: Plain, name: str) -> None:
        gone = [term("label", one.label), term("name", one.label)]
        await self.index.change(tx, number, gone=gone, come=name_terms("plain-name", name))
        one.values["name"], one.label = {"plain-name", name}, name

    async def _words(self, tx: Any, number: int, one: Plain, words: set[str]) -> None:
        await self.index.change(tx, number, text=(" ".join(one.words), " ".join(words)))
        one.words = set(words)

    async def check(self, filter: str, order_by: str) -> None:
        """Set, count, pages and facets, as they are by definition."""
        question, order = parse(filter), read_order(order_by)
        wanted = {number for number, one in self.plain.items() if holds(one, question)}
        asked = (("stage", "stage"), ("tags.team", 'tag:"team"'))
        async with self.database.begin_reading(self.workspace) as tx:
            view = await self.reader.open(tx)
            await evaluating.load(view, question)
            await ordering.load(view, order)
            terms = await facets.load(view, asked)
            found = evaluating.evaluate(view, question)
            assert set(found) == wanted, filter
            seen: list[int] = []
            last: Row | None = None
            while page := ordering.page(view, found, order, last, 2):
                seen += [row.number for row in page]
                last = page[-1]
            assert seen == ordered(self.plain, wanted, order), (filter, order_by)
            for facet, (_, of) in zip(facets.count(view, found, asked, terms), asked, strict=True):
                counted: dict[str, int] = {}
                for number in wanted:
                    for value in self.plain[number].values.get(of, set()):
                        counted[value] = counted.get(value, 0) + 1
                assert dict(facet.values) == counted and facet.whole


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Makes a catalog in a workspace of its own; all of them share a memory that holds next to nothing."""
    loop = asyncio.new_event_loop()
    installation = Installation(Backing.of_run(), tmp_path_factory.mktemp("index"))
    loop.run_until_complete(installation.prepare())
    database = Database(installation.dsn("registry"), "registry", pool_size=2)
    loop.run_until_complete(database.open())
    queries, workspaces = load("services.registry.search"), count()
    cache = Cache(4_000)

    def play(moves: list[tuple[Any, ...]]) -> None:
        catalog = Catalog(database, f"w{next(workspaces)}", Index(queries), Fold(queries), Reader(queries, cache))

        async def run() -> None:
            for step in moves:
                await catalog.play(step)

        loop.run_until_complete(run())

    yield play
    loop.run_until_complete(database.close())
    loop.run_until_complete(installation.close())
    loop.close()


ADD = [
    ("add", number, NAMES[at % 6], TEAMS[at % 4], {"auc": at / 10}, {WORDS[at % 3]})
    for at, number in enumerate(NUMBERS)
]
EVERY = [("ask", f"NOT {quoted} AND name LIKE '%'", "name") for quoted in ("tags.team = 'labour'", "metrics.auc < 0.5")]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@example(
    [*ADD, *EVERY, ("fold", 100), *EVERY, ("rename", 1, "zebra"), ("team", 65_536, None), *EVERY, ("fold", 1), *EVERY]
)
@example(
    [("add", n, name, None, {}, set()) for n, name in ((1, "zebra"), (2, "credit"))]
    + [("fold", 1)]
    + [("add", 3, "credit", None, {}, set())]
)
@given(st.lists(steps, min_size=8, max_size=40))
def test_the_index_is_what_asking_every_version_says(catalogs: Any, moves: list[tuple[Any, ...]]) -> None:
    asks = [("ask", "name LIKE '%'", "name"), ("fold", 1_000), ("ask", "alias IS NULL", "name DESC")]
    catalogs([*moves, *asks])
