"""`make bench-registry`: searching a catalog of 1,000,000 versions, and MLflow's own server with the same one.

The registry answers over HTTP's whole edge, each question with values drawn anew. MLflow's server (one worker) has a
database of its own in the same Postgres, its tables filled with the same versions, and is asked what it can be asked.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import uvloop

from bench import catalog, report
from bench.catalog import DOMAINS, TEAMS, THINGS, Folded, Made
from deploy.local.infrastructure import start_infrastructure
from services.registry.search import meaning
from services.registry.search.embedders import Shipped
from services.registry.search.facts import found_in
from shared.testing.backing import ADMIN_DSN, BOOTSTRAP, Backing
from shared.testing.installation import Installation

GOAL_MS, GOAL_TIMES = 50, 20


class Kept:
    """What MLflow's tables hold of a version."""

    __slots__ = ("at", "description", "name", "number", "tags", "version")

    def __init__(self, made: Made) -> None:
        self.name, self.number, self.version = made.name, made.number, made.version
        self.tags, self.description = made.draft.tags, made.draft.description
        self.at = int(made.draft.registered_at.timestamp() * 1000)


kept: list[Kept] = []
PAGE = 50
Question = Callable[[random.Random], dict[str, Any]]


async def fill(installation: Installation, count: int, assets: int) -> dict[str, Any]:
    """The registry's tables, in bulk."""
    began = time.perf_counter()
    db = await asyncpg.connect(
        installation.backing.dsn(installation.database), command_timeout=900,
        server_settings={"search_path": "registry", "session_replication_role": "replica"},
    )  # fmt: skip
    folded = Folded(await catalog.stems_of(db, count, assets))
    stages: list[tuple[Any, ...]] = []
    kept.clear()
    last: dict[str, int] = {}

    def rows() -> Iterator[tuple[Any, ...]]:
        for made in catalog.versions(count, assets):
            folded.add(made)
            kept.append(Kept(made))
            last[made.draft.urn] = max(made.version, last.get(made.draft.urn, 0))
            if made.stage != "development":
                at = made.draft.registered_at
                stages.append(
                    ("default", made.draft.urn, made.version, 1, "development", made.stage, "user:x", True, "bench", at)
                )
            yield catalog.version_row(made)

    await db.copy_records_to_table("version", records=rows(), columns=catalog.VERSION_COLUMNS)
    await db.copy_records_to_table("stage_move", records=stages)
    await db.copy_records_to_table(
        "asset", columns=["workspace", "urn", "kind", "name", "title", "last_version", "created_at", "updated_at"],
        records=[
            ("default", urn, *urn[3:].split("/"), urn.split("/")[1], n, catalog.START, catalog.START)
            for urn, n in last.items()
        ],
    )  # fmt: skip
    await db.copy_records_to_table("posting", records=folded.posting_rows())
    await db.copy_records_to_table("vocabulary", records=folded.vocabulary_rows())
    await db.copy_records_to_table("measured", records=folded.measured_rows())
    labels, gists = folded.labels, folded.meanings
    await db.copy_records_to_table("label", records=[("default", id, name, name) for name, id in labels.items()])
    await db.copy_records_to_table("meaning", records=[("default", id, str(id), gist) for gist, id in gists.items()])
    await db.execute("INSERT INTO search_state VALUES ('default', 1, $1, $2)", len(labels), len(gists))
    await db.execute("SELECT setval(pg_get_serial_sequence('registry.version', 'number'), $1)", count)
    spent = time.perf_counter() - began
    embedded = await embed(db, list(gists))
    await db.execute("VACUUM (ANALYZE)")
    await check(db, count, assets)
    await db.close()
    return {
        "versions": count, "assets": len(last), "terms": len(folded.postings), "texts": len(gists),
        "copied in s": round(spent), "embedded and indexed in s": round(embedded),
    }  # fmt: skip


async def embed(db: asyncpg.Connection, gists: list[str]) -> float:
    """Vectors of all texts, as the worker makes them; the index is built when they are there."""
    began, shipped = time.perf_counter(), Shipped()
    near = await db.fetchval("SELECT make_near()")
    dimensions = 0
    for start in range(0, len(gists), 20_000):
        vectors = await shipped.embed(gists[start : start + 20_000])
        dimensions = vectors.shape[1]
        ids = range(start + 1, start + 1 + len(vectors))
        records = [("default", shipped.name, id, meaning.packed(one)) for id, one in zip(ids, vectors, strict=True)]
        await db.copy_records_to_table("embedding", records=records)
        if near:
            await db.execute(
                "INSERT INTO near SELECT 'default', $1, id, vector::halfvec FROM unnest($2::bigint[], $3::text[]) "
                "AS made (id, vector)", shipped.name, list(ids), [meaning.as_text(one) for one in vectors],
            )  # fmt: skip
    if near:
        await db.execute("SET maintenance_work_mem = '1GB'")
        await db.execute("SELECT index_near($1, $2)", shipped.name, dimensions)
    await db.execute(
        "INSERT INTO embedder VALUES ('default', $1, $2, $3, $3, now(), now())", shipped.name, dimensions, len(gists)
    )
    return time.perf_counter() - began


async def check(db: asyncpg.Connection, count: int, assets: int) -> None:
    """A sample's terms as the registry's own SQL makes its words; raises AssertionError where one is not found."""
    sample = list(catalog.versions(min(count, 300), assets))
    for made in sample[::10]:
        found = found_in(made.draft, made.name)
        words = await db.fetchval("SELECT tsvector_to_array(to_tsvector('english', $1))", found.text)
        terms = {f"word={word}" for word in words} | {t for t in found.terms if not t.startswith(("label=", "stage="))}
        rows = await db.fetch(
            "SELECT term, bitmap FROM posting WHERE block = 0 AND term = ANY($1::text[])", list(terms)
        )
        there = {row["term"] for row in rows if made.number in catalog.BitMap.deserialize(row["bitmap"])}
        assert there == terms, terms - there


def questions(count: int, assets: int) -> dict[str, Question]:
    """What people ask."""

    def team(dice: random.Random) -> str:
        return TEAMS[dice.randrange(200)]

    def at(dice: random.Random) -> str:
        return (catalog.START + dice.randrange(count) * catalog.STEP).date().isoformat()

    def thing(dice: random.Random) -> str:
        return dice.choice(THINGS)

    def where(filter: str, **more: Any) -> dict[str, Any]:
        return {"filter": filter, **more}

    wanted: dict[str, Question] = {
        "nothing: the newest": lambda _: {},
        "a rare tag": lambda d: where(f"tags.commit = '{catalog.commit_of(d.randrange(1, count))}'"),
        "a common tag": lambda d: where(f"tags.tier = '{d.choice(catalog.TIERS)}'"),
        "a tag and a stage": lambda d: where(f"tags.team = '{team(d)}' AND stage = 'production'"),
        "two common ones that never meet": lambda d: where(
            f"kind = 'prompt' AND tags.framework = '{d.choice(catalog.FRAMEWORKS)}'"),
        "OR, NOT": lambda d: where(
            f"(tags.team = '{team(d)}' OR tags.team = '{team(d)}') AND NOT (stage = 'development' OR licence = 'MIT')"),
        "not prompts, as MLflow's client says it": lambda d: where(
            f"name = '{catalog.name_of(d.randrange(assets))}' AND tag.`mlflow.prompt.is_prompt` != 'true'"),
        "a metric above": lambda d: where(f"metrics.auc > {0.6 + d.random() * 0.3:.3f}"),
        "a metric between, and a tag": lambda d: where(
            f"metrics.auc > 0.7 AND metrics.auc < 0.8 AND metrics.loss < {d.random():.2f} AND tags.team = '{team(d)}'"),
        "created after, best metric first": lambda d: where(f"created >= '{at(d)}'", order_by="metrics.auc DESC"),
        "name LIKE 'x%'": lambda d: where(f"name LIKE '{d.choice(DOMAINS)}-%'"),
        "name LIKE '%x%'": lambda d: where(f"name LIKE '%{thing(d)[1:]}%'"),
        "name ILIKE, by name": lambda d: where(f"name ILIKE '%{thing(d).upper()}%'", order_by="name"),
        "tag LIKE 'x%'": lambda d: where(f"tags.commit LIKE '{catalog.commit_of(d.randrange(count))[:5]}%'"),
        "no tag": lambda _: where("tags.framework IS NULL AND kind != 'dataset'"),
        "one word": lambda d: {"q": thing(d)},
        "two words": lambda d: {"q": f"{thing(d)} {d.choice(DOMAINS)}"},
        "three words and a filter": lambda d: where("stage != 'retired'", q=f"{thing(d)} rural households"),
        "words by relevance": lambda d: {"q": f"{thing(d)} telemetry", "mode": "text", "order_by": "relevance"},
        "semantic": lambda d: {"q": f"who will not pay back {thing(d)} {d.choice(DOMAINS)}", "mode": "semantic"},
        "semantic, half of all": lambda d: where(
            "tags.tier = 'gold' OR stage = 'retired'", q=f"{thing(d)} for {d.choice(DOMAINS)}", mode="semantic"),
        "semantic, few": lambda d: where(
            f"tags.team = '{team(d)}' AND stage = 'production'", q=f"{thing(d)} {d.choice(DOMAINS)}", mode="semantic"),
        "hybrid": lambda d: {"q": f"{thing(d)} {d.choice(DOMAINS)} households", "mode": "hybrid"},
        "hybrid and a filter": lambda d: where(
            "kind = 'model' AND metrics.auc > 0.8", q=f"{thing(d)} satellite", mode="hybrid"),
        "facets of all": lambda _: {"facets": "usual,tags.team,tags.tier"},
        "facets of a filter": lambda d: where(f"metrics.auc > {0.6 + d.random() * 0.3:.3f}", facets="usual,tags.team"),
        "a question": lambda d: {
            "q": f"models for {d.choice(DOMAINS)} {thing(d)} in production with auc over 0.{d.randrange(6, 9)}, "
                 "newest first",
            "mode": "question"},
    }  # fmt: skip
    return wanted


PEERS: dict[str, Callable[[random.Random, int, int], str]] = {
    "a rare tag": lambda d, count, _: f"tags.commit = '{catalog.commit_of(d.randrange(1, count))}'",
    "a common tag": lambda d, *_: f"tags.tier = '{d.choice(catalog.TIERS)}'",
    "a tag of a two-hundredth": lambda d, *_: f"tags.team = '{TEAMS[d.randrange(200)]}'",
    "two tags": lambda d, *_: f"tags.team = '{TEAMS[d.randrange(200)]}' AND tags.tier = 'gold'",
    "a name": lambda d, _, assets: f"name = '{catalog.name_of(d.randrange(assets))}'",
    "name LIKE 'x%'": lambda d, *_: f"name LIKE '{d.choice(DOMAINS)}-%'",
    "name LIKE '%x%'": lambda d, *_: f"name LIKE '%{d.choice(THINGS)[1:]}%'",
    "name ILIKE and a tag": lambda d, *_: f"name ILIKE '%{d.choice(THINGS).upper()}%' AND tags.tier = 'silver'",
}
"""What MLflow's search of versions can be asked; it knows no metrics, no OR, no words."""


async def ask(client: httpx.AsyncClient, path: str, of: Question, rounds: int, seed: int, most_s: float) -> list[float]:
    """Milliseconds of each answer; fewer rounds where they would take longer than `most_s`."""
    spent: list[float] = []
    began = time.perf_counter()
    for number in range(rounds):
        asked = of(random.Random(seed + number))
        start = time.perf_counter()
        answer = await client.get(path, params=asked)
        spent.append((time.perf_counter() - start) * 1000)
        assert answer.status_code == 200, (asked, answer.text[:500])
        if time.perf_counter() - began > most_s:
            break
    return spent


def timed(spent: list[float]) -> dict[str, Any]:
    return {**report.summary(spent), "p95_ms": round(report.percentile(spent, 0.95), 2)}


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    installation = await Installation(Backing.of_run(), folder / "installation").prepare()
    key = installation.key("user:bench", "owner")
    filled = await fill(installation, arguments.versions, arguments.assets)
    print(filled, flush=True)
    await installation.start("registry")
    logging.disable(logging.INFO)  # a client's line a request
    rows: list[dict[str, Any]] = []
    async with installation.client("registry", key) as client:
        for name, of in questions(arguments.versions, arguments.assets).items():
            cold = await ask(client, "/registry/v1/search", of, 1, 0, 60)
            await ask(client, "/registry/v1/search", of, 5, 1, 10)
            spent = await ask(client, "/registry/v1/search", of, arguments.rounds, 100, 20)
            rows.append({"what": name, **timed(spent), "first_ms": round(cold[0], 1)})
            print(rows[-1], flush=True)
        rows += await beside(client, arguments)
    slowest = max((row for row in rows if "times" not in row), key=lambda row: row["p95_ms"])
    ratios = [row["times"] for row in rows if "times" in row]
    await installation.close()
    report.write(
        "registry",
        rows,
        {
            "p95, slowest question": f"{slowest['p95_ms']} ms, {slowest['what']!r} (goal under {GOAL_MS} ms)",
            "MLflow's p50 / ours": f"{min(ratios)} to {max(ratios)} (goal {GOAL_TIMES})" if ratios else "not measured",
            "catalog": ", ".join(f"{name}: {value:,}" for name, value in filled.items()),
            "load average at the end": str(os.getloadavg()),
        },
    )


async def beside(client: httpx.AsyncClient, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The same questions of MLflow's server and of ours, one after the other."""
    if arguments.no_peer:
        return []
    rows = []
    async with mlflow_server(arguments) as peer:
        for name, of in PEERS.items():

            def theirs(dice: random.Random, of: Any = of) -> dict[str, Any]:
                return {"filter": of(dice, arguments.versions, arguments.assets), "max_results": PAGE}

            def ours(dice: random.Random, of: Any = of) -> dict[str, Any]:
                return {"filter": of(dice, arguments.versions, arguments.assets), "page_size": PAGE}

            slow = await ask(peer, "/api/2.0/mlflow/model-versions/search", theirs, 20, 100, arguments.peer_seconds)
            fast = await ask(client, "/registry/v1/search", ours, arguments.rounds, 100, 20)
            row = {"what": f"beside MLflow: {name}", **timed(fast), "mlflow_p50_ms": report.summary(slow)["p50_ms"]}
            row["times"] = round(row["mlflow_p50_ms"] / row["p50_ms"], 1)
            rows.append(row)
            print(row, flush=True)
    return rows


class mlflow_server:  # noqa: N801 - used as a context
    """MLflow's server, one worker, on a database of its own with the same versions."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments

    async def __aenter__(self) -> httpx.AsyncClient:
        admin = os.environ[ADMIN_DSN]
        db = await asyncpg.connect(admin)
        await db.execute("DROP DATABASE IF EXISTS mlflow_bench")
        await db.execute("CREATE DATABASE mlflow_bench")
        await db.close()
        parts = urlsplit(admin)
        dsn = urlunsplit((parts.scheme, parts.netloc, "/mlflow_bench", "", ""))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - starting takes a millisecond
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", dsn.replace("postgresql://", "postgresql+psycopg2://", 1),
             "--artifacts-destination", tempfile.gettempdir()],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300)
        deadline = time.monotonic() + 120
        while True:
            assert self._process.poll() is None and time.monotonic() < deadline, "MLflow's server did not start"
            try:
                if (await self._client.get("/health")).status_code == 200:
                    break
            except httpx.TransportError:
                await asyncio.sleep(0.5)
        await self._fill(dsn)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()
        os.killpg(self._process.pid, signal.SIGTERM)
        await asyncio.to_thread(self._process.wait, 30)

    async def _fill(self, dsn: str) -> None:
        """Its own tables, with what its store writes for each version (held against one made by its API)."""
        began = time.perf_counter()
        made = await self._client.post("/api/2.0/mlflow/registered-models/create", json={"name": "probe"})
        assert made.status_code == 200, made.text
        created = {"name": "probe", "source": "s3://bench/probe", "tags": [{"key": "team", "value": "x"}]}
        made = await self._client.post("/api/2.0/mlflow/model-versions/create", json=created)
        assert made.status_code == 200, made.text
        db = await asyncpg.connect(dsn, command_timeout=900, server_settings={"session_replication_role": "replica"})
        template = dict(await db.fetchrow("SELECT * FROM model_versions"))
        tag = dict(await db.fetchrow("SELECT * FROM model_version_tags"))
        model = dict(await db.fetchrow("SELECT * FROM registered_models"))
        names: set[str] = set()
        tags: list[tuple[Any, ...]] = []

        def version(one: Kept) -> tuple[Any, ...]:
            names.add(one.name)
            tags.extend(tuple({**tag, "name": one.name, "version": one.version, "key": k, "value": v}.values())
                        for k, v in one.tags.items())  # fmt: skip
            return tuple({
                **template, "name": one.name, "version": one.version, "creation_time": one.at,
                "last_updated_time": one.at,
                "description": one.description, "source": f"s3://bench/{one.number}",
                "storage_location": f"s3://bench/{one.number}",
            }.values())  # fmt: skip

        count = self._arguments.versions
        await db.copy_records_to_table("model_versions", records=(version(one) for one in kept), columns=list(template))
        await db.copy_records_to_table("model_version_tags", records=tags, columns=list(tag))
        await db.copy_records_to_table(
            "registered_models", columns=list(model),
            records=[tuple({**model, "name": name}.values()) for name in names],
        )  # fmt: skip
        await db.execute("VACUUM (ANALYZE)")
        await db.close()
        print(f"MLflow's tables: {count:,} versions in {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.registry", description=__doc__)
    parser.add_argument("--versions", type=int, default=1_000_000)
    parser.add_argument("--assets", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=100, help="of each question")
    parser.add_argument("--peer-seconds", type=float, default=20, help="for each question that MLflow is asked")
    parser.add_argument("--no-peer", action="store_true", help="without MLflow's server, which needs psycopg2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mintmark-bench-") as folder:
        infrastructure = start_infrastructure(Path(folder) / "data", throwaway=True)
        try:
            os.environ[BOOTSTRAP], os.environ[ADMIN_DSN] = infrastructure.kafka_bootstrap, infrastructure.admin_dsn
            uvloop.run(measure(arguments, Path(folder)))
        finally:
            infrastructure.stop()


if __name__ == "__main__":
    main()
