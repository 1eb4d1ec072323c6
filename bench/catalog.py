"""A catalog of any size for bench.registry: the same versions in the registry's tables and in MLflow's.

Names, tags, texts, metrics and stages are drawn from a seed. What finds a version is computed by the code that
registers one (`facts.found_in`) and laid out as the worker folds it, and then copied in bulk: through the registry a
million versions would take a quarter of an hour.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from pyroaring import BitMap

from services.registry.domain.assets import Draft
from services.registry.search.bitmaps import pack_numbers, packed, split
from services.registry.search.facts import ALL, Found, found_in, milliseconds, presences
from services.registry.search.folding import LABEL
from shared.events.base import Actor
from shared.ids import sha256

START = datetime(2025, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=40)
DOMAINS = [
    "credit", "churn", "fraud", "claims", "pricing", "demand", "energy", "traffic", "health", "labour", "logistics",
    "retail", "insurance", "mortgage", "telecom", "steel", "water", "crops", "weather", "tax", "legal", "support",
    "search", "vision", "speech", "video", "sensor", "grid", "rail", "aviation", "shipping", "housing", "pension",
    "payments", "audit", "hiring", "travel", "media", "games", "sports",
]  # fmt: skip
THINGS = [
    "default", "risk", "score", "forecast", "ranking", "anomaly", "segments", "summary", "intent", "routing", "failure",
    "quality", "volume", "delay", "price", "loss", "uplift", "match", "duplicate", "entity", "topic", "sentiment",
    "occupancy", "yield", "load", "leak", "theft", "abuse", "spam", "toxicity", "triage", "dosage", "staffing", "quota",
    "renewal", "conversion", "basket", "returns", "margin", "exposure", "capital", "reserve", "severity", "frequency",
    "lapse", "mortality", "morbidity", "collateral", "recovery", "cure",
]  # fmt: skip
METHODS = [
    "gradient boosting",
    "a linear model",
    "a transformer",
    "nearest neighbours",
    "rules",
    "a mixture of experts",
]
SOURCES = ["ledger", "clickstream", "telemetry", "survey", "registry", "satellite", "call centre", "invoices"]
NOTES = [
    "trained on households in rural regions", "calibrated after the spring review", "for night shifts only",
    "replaces the vendor's answer", "keeps protected attributes out", "robust to missing values",
    "explained with Shapley values", "distilled from a larger one", "with monotone constraints", "for small branches",
]  # fmt: skip
TEAMS = [f"team-{number}" for number in range(200)]
TIERS = ["gold", "silver", "bronze"]
FRAMEWORKS = ["lightgbm", "onnx", "skops"]
LICENCES = ["Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "llama3.1", "openrail", "proprietary", "GPL-3.0-only"]
TASKS = ["classification", "regression", "forecasting", "summarization", "extraction"]
STAGES = [("development", 80), ("staging", 10), ("production", 2), ("monitoring", 3), ("retired", 5)]
TEXTS_AN_ASSET = 10


@dataclass(frozen=True, slots=True)
class Made:
    """One version as it is made."""

    number: int
    asset: int
    version: int
    stage: str
    draft: Draft

    @property
    def name(self) -> str:
        return self.draft.urn.partition("/")[2]


def name_of(asset: int) -> str:
    return f"{DOMAINS[asset % 40]}-{THINGS[asset // 40 % 50]}-{asset // 2000}"


def versions(count: int, assets: int, seed: int = 7) -> Iterator[Made]:
    """So many versions of so many assets, in the order of their registration."""
    dice = random.Random(seed)
    last = array("I", [0]) * assets
    stages = [stage for stage, share in STAGES for _ in range(share)]
    for number in range(1, count + 1):
        asset = dice.randrange(assets)
        last[asset] += 1
        yield Made(number, asset, last[asset], dice.choice(stages), draft_of(number, asset, last[asset], dice))


def draft_of(number: int, asset: int, version: int, dice: random.Random) -> Draft:
    kind = "prompt" if asset % 20 == 0 else "dataset" if asset % 20 == 1 else "model"
    name = name_of(asset)
    team = TEAMS[min(int(dice.paretovariate(0.6)) - 1, 199) if dice.random() < 0.7 else dice.randrange(200)]
    tags = {"team": team, "tier": TIERS[asset % 3], "commit": commit_of(number)}
    if kind == "model":
        tags["framework"] = FRAMEWORKS[asset % 3]
    description = description_of(asset, version % TEXTS_AN_ASSET)
    metrics = {
        "auc": round(dice.betavariate(8, 2), 4),
        "loss": round(dice.expovariate(3), 4),
        "latency_ms": version % 90,
    }
    digest = sha256(b"%d" % number)
    content = {
        "urn": f"mm:{kind}/{name}", "kind": kind, "artefact": {"digest": digest, "format": "lightgbm"},
        "manifest": None,
        "task": TASKS[asset % 5] if kind == "model" else None, "signature": {"inputs": [], "outputs": []},
        "golden_set": None, "training": {"run_id": None, "commit": None, "dataset": None, "parameters": {}, "base": []},
        "prompts": [], "licence": LICENCES[asset % 8],
    }  # fmt: skip
    return Draft(
        urn=f"mm:{kind}/{name}", content=content, artefact_size=100_000, tags=tags, description=description,
        metrics=metrics, author=Actor(id=f"user:u{asset % 500}", proven=True), submission_id=UUID(int=number),
        registered_at=START + number * STEP,
    )  # fmt: skip


def description_of(asset: int, text: int) -> str:
    words = (asset * 31 + text * 7) % 10_007
    return (
        f"Estimates {THINGS[asset // 40 % 50]} in {DOMAINS[asset % 40]} from the {SOURCES[words % 8]} by "
        f"{METHODS[words % 6]}; {NOTES[words // 8 % 10]}, case {asset * TEXTS_AN_ASSET + text}."
    )


def commit_of(number: int) -> str:
    """One word to Postgres, which makes no stem of what has a digit."""
    return f"c0{number * 2_654_435_761 % 2**40:010x}"


class Folded:
    """What the worker would have folded of the versions given to it."""

    def __init__(self, stems: dict[str, list[str]]) -> None:
        self._stems = stems
        self._words: dict[str, frozenset[str]] = {}
        self.postings: dict[str, array[int]] = {}
        self.numbers: dict[str, tuple[array[int], array[float]]] = {}
        self.labels: dict[str, int] = {}
        self.meanings: dict[str, int] = {}

    def add(self, made: Made) -> None:
        found = found_in(made.draft, made.name)
        number = made.number
        for term in self._terms_of(found, made):
            if term in self.postings:
                self.postings[term].append(number)
            else:
                self.postings[term] = array("I", (number,))
        at = milliseconds(found.at)
        said = {**found.numbers, "created": at, "updated": at, "version": made.version}
        said["label"] = self.labels.setdefault(made.name, len(self.labels) + 1)
        said["meaning"] = self.meanings.setdefault(found.gist, len(self.meanings) + 1)
        for field, value in said.items():
            numbers, values = self.numbers.setdefault(field, (array("I"), array("d")))
            numbers.append(number)
            values.append(value)

    def _terms_of(self, found: Found, made: Made) -> Iterator[str]:
        """Every term of a version, its words among them, each once."""
        stage = f"stage={made.stage}"
        yield ALL
        told = (term for term in found.terms if not term.startswith(LABEL))
        yield from (stage if term == "stage=development" else term for term in told)
        yield from presences(found.terms)
        text, tags = found.text.split("\nteam ", 1)
        words = self._words.get(text)
        if words is None:
            words = self._words[text] = self._stemmed(text)
        yield from words
        yield from self._stemmed("team " + tags) - words

    def _stemmed(self, text: str) -> frozenset[str]:
        parts = _parts(text)
        return frozenset(f"word={stem}" for part in parts for stem in self._stems.get(part, (part,)))

    def posting_rows(self) -> Iterator[tuple[Any, ...]]:
        for term, numbers in self.postings.items():
            for block, places in split(np.frombuffer(numbers, np.uint32)):
                whole = places.astype(np.uint32) + np.uint32(block << 16)
                yield "default", term, block, 1, packed(BitMap(array("I", whole.tobytes())))

    def vocabulary_rows(self) -> Iterator[tuple[Any, ...]]:
        for term, numbers in self.postings.items():
            yield "default", term, len(numbers)

    def measured_rows(self) -> Iterator[tuple[Any, ...]]:
        for field, (numbers, values) in self.numbers.items():
            start = 0
            for block, places in split(np.frombuffer(numbers, np.uint32)):
                here = np.frombuffer(values, np.float64)[start : start + len(places)]
                start += len(places)
                yield "default", field, block, 1, pack_numbers(places, here)


def _parts(text: str) -> set[str]:
    return {part for line in text.split("\n") for part in line.split(" ")}


async def stems_of(connection: Any, count: int, assets: int) -> dict[str, list[str]]:
    """What Postgres makes of every piece of the texts, but for commits, which stand in one text each."""
    some = versions(min(count, 20_000), assets)
    parts = {part for made in some for part in _parts(found_in(made.draft, made.name).text)}
    for asset in range(assets):
        parts |= {name_of(asset), *name_of(asset).split("-")}
        parts |= {part for text in range(TEXTS_AN_ASSET) for part in description_of(asset, text).split(" ")}
    parts -= {part for part in parts if part.startswith("c0") and len(part) == 12}
    rows = await connection.fetch(
        "SELECT part, tsvector_to_array(to_tsvector('english', part)) AS stems FROM unnest($1::text[]) AS part",
        list(parts),
    )
    return {row["part"]: row["stems"] for row in rows}


def version_row(made: Made) -> tuple[Any, ...]:
    draft = made.draft
    return (
        made.number, "default", draft.urn, made.version, sha256(b"content %d" % made.number),
        orjson.dumps(draft.content).decode(), draft.artefact_digest, draft.artefact_size,
        orjson.dumps(draft.tags).decode(), draft.description, orjson.dumps(draft.metrics).decode(),
        draft.author.id, True,
        draft.submission_id, draft.registered_at,
    )  # fmt: skip


VERSION_COLUMNS = [
    "number", "workspace", "urn", "version", "digest", "content", "artefact_digest", "artefact_size", "tags",
    "description", "metrics", "author", "author_proven", "submission_id", "registered_at",
]  # fmt: skip
