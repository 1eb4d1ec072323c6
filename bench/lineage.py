"""`make bench-lineage`: walks through a lineage of 100,000 nodes.

The graph is what the road makes, inside Postgres: datasets, runs, versions of models, each with its evaluation, gate,
approval, deployment and a group; one model in ten is derived from another, so that ways are long; one dataset has
10,000 runs, so that there is a hub; groups have changed their champion ten times, so that there is history. Each query
is asked over HTTP's whole edge, of a node drawn anew each time.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench import report
from deploy.local.infrastructure import start_infrastructure
from shared.testing.backing import ADMIN_DSN, BOOTSTRAP, Backing
from shared.testing.installation import Installation

GOAL_MS = 100
HUB = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)
EDGES = """
INSERT INTO edge (workspace, source, association, destination, since, until, properties, event_id)
SELECT 'default', source, association, destination, $2::timestamptz + n * interval '1 second', until,
    properties, 'e' || n
FROM generate_series(1, $1::integer) AS n, LATERAL (VALUES
    (format('mm:dataset/d-%s@1', CASE WHEN n <= $3 THEN 0 ELSE n % ($1 / 10) + 1 END), 'ContributedTo',
        format('run:%s', n), NULL::timestamptz, '{}'::jsonb),
    (format('run:%s', n), 'Produced', format('mm:model/m-%s@1', n), NULL, '{}'),
    (format('mm:model/m-%s@1', n), 'ContributedTo', format('evaluation:%s', n), NULL, '{}'),
    (format('evaluation:%s', n), 'ContributedTo', format('gate:%s', n), NULL, '{}'),
    (format('mm:model/m-%s@1', n), 'AssociatedWith', format('gate:%s', n), NULL, '{}'),
    (format('mm:model/m-%s@1', n), 'AssociatedWith', format('approval:%s', n), NULL, '{}'),
    (format('approval:%s', n), 'ContributedTo', format('deployment:%s', n), NULL, '{}'),
    (format('mm:model/m-%s@1', n), 'ContributedTo', format('deployment:%s', n), NULL, '{}'),
    (format('mm:model/m-%s@1', n), 'AssociatedWith', format('group:g-%s', n / 10),
        CASE WHEN n % 10 <> 9 THEN $2::timestamptz + (n + 1) * interval '1 second' END,
        '{"role": "champion", "weight_bp": 10000}')
) AS made (source, association, destination, until, properties)
UNION ALL
SELECT 'default', format('mm:model/m-%s@1', n / 10), 'DerivedFrom', format('mm:model/m-%s@1', n), $2, NULL, '{}',
    'b' || n
FROM generate_series(1, $1::integer) AS n WHERE n % 10 = 0
"""


async def fill(dsn: str, nodes: int) -> dict[str, Any]:
    """So many nodes, six and a half a model; then what autovacuum would do."""
    began = time.perf_counter()
    models = int(nodes / 6.2)
    db = await asyncpg.connect(
        dsn, server_settings={"search_path": "registry", "mintmark.workspace": "default"}, command_timeout=600
    )
    await db.execute(EDGES, models, START, min(HUB, models // 2))
    await db.execute("VACUUM (ANALYZE) edge")
    there = await db.fetchval(
        "SELECT count(*) FROM (SELECT source FROM edge UNION SELECT destination FROM edge) AS nodes"
    )
    edges = await db.fetchval("SELECT count(*) FROM edge")
    await db.close()
    return {"what": f"made in Postgres: {there:,} nodes", "n": edges, "seconds": round(time.perf_counter() - began, 1)}


def questions(models: int) -> dict[str, Callable[[random.Random], tuple[str, dict[str, Any]]]]:
    """What people ask."""

    def model(dice: random.Random) -> str:
        return f"mm:model/m-{dice.randrange(models // 2, models)}@1"

    def dataset(dice: random.Random) -> str:
        return f"mm:dataset/d-{dice.randrange(1, models // 10)}@1"

    def group(dice: random.Random) -> str:
        return f"group:g-{dice.randrange(models // 10)}"

    def moment(dice: random.Random) -> str:
        return (START + timedelta(seconds=dice.randrange(models))).isoformat()

    def ending(dice: random.Random) -> tuple[str, dict[str, Any]]:
        n = dice.randrange(models * 3 // 4, models)
        return "/path", {"source": f"mm:dataset/d-{n % (models // 10) + 1}@1", "destination": f"deployment:{n}"}

    hub = {"node": "mm:dataset/d-0@1"}
    return {
        "a version, both ways": lambda dice: ("", {"node": model(dice)}),
        "a version, both ways, as of": lambda dice: ("", {"node": model(dice), "at": moment(dice)}),
        "upstream of a group": lambda dice: ("", {"node": group(dice), "direction": "upstream"}),
        "downstream of a dataset": lambda dice: ("", {"node": dataset(dice), "direction": "downstream"}),
        "impact of a dataset": lambda dice: ("/impact", {"node": dataset(dice)}),
        "impact of a dataset, as of": lambda dice: ("/impact", {"node": dataset(dice), "at": moment(dice)}),
        "impact of the hub": lambda _: ("/impact", hub),
        "impact of the hub, as of": lambda dice: ("/impact", {**hub, "at": moment(dice)}),
        "downstream of the hub, depth 3": lambda _: ("", {**hub, "direction": "downstream", "max_depth": 3}),
        "way from a dataset to a deployment": ending,
        "way from the hub": lambda dice: ("/path", {"source": hub["node"], "destination": group(dice)}),
    }


async def measure(nodes: int, seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        installation = await Installation(Backing.of_run(), Path(folder)).prepare()
        try:
            key = installation.key("user:bench", "viewer")
            await installation.start("registry")
            rows.append(await fill(installation.backing.dsn(installation.database), nodes))
            dice = random.Random(1)
            async with installation.client("registry", key) as client:
                for what, draw in questions(int(nodes / 6.2)).items():
                    taken, sizes = [], []
                    until = time.perf_counter() + seconds
                    while time.perf_counter() < until:
                        path, query = draw(dice)
                        began = time.perf_counter()
                        answer = await client.get(f"/registry/v1/lineage{path}", params=query)
                        taken.append((time.perf_counter() - began) * 1000)
                        assert answer.status_code == 200, answer.text
                        found = answer.json()
                        sizes.append(len(found.get("nodes", ())) or sum(found.get("counts", {}).values()))
                    p95 = round(report.percentile(taken, 0.95), 2)
                    rows.append(
                        {
                            "what": what,
                            **report.summary(taken),
                            "p95_ms": p95,
                            "mean nodes": round(sum(sizes) / len(sizes), 1),
                            "goal": "met" if p95 < GOAL_MS else "MISSED",
                        }
                    )
        finally:
            await installation.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.lineage", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5, help="for each question")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        infrastructure = start_infrastructure(Path(folder), throwaway=True)
        try:
            os.environ[BOOTSTRAP], os.environ[ADMIN_DSN] = infrastructure.kafka_bootstrap, infrastructure.admin_dsn
            rows = uvloop.run(measure(options.nodes, options.seconds))
        finally:
            infrastructure.stop()
    report.write("lineage", rows, {"goal": f"p95 < {GOAL_MS} ms over HTTP's whole edge, one client"})


if __name__ == "__main__":
    main()
