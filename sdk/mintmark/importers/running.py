"""An import: shown first, then done asset by asset, so that one that was cut off goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import httpx

from mintmark.client import Client, Problem
from mintmark.importers.found import FoundAsset, FoundTrial, FoundVersion, Reader, SourceFailed, Trials, Wanted

IMPORTS = "/registry/v1/imports"
RUNS = f"{IMPORTS}/runs"
MOST_POINTS = 10_000
TRIES = 5
MOST_ASSETS = 50
MOST_VERSIONS = 200
MOST_JSON = 2_000_000
CHUNK = 1024 * 1024


@dataclass(slots=True)
class Row:
    """What became, or would become, of one asset or version."""

    title: str
    id: str
    urn: str
    version: int | None
    outcome: str
    differences: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""

    @property
    def in_the_way(self) -> bool:
        """Somebody has to decide."""
        return self.outcome in ("conflict", "refused") or any(one.get("why_not") for one in self.differences)


@dataclass(slots=True)
class Summary:
    """Everything that an import found; `assets`, `versions` and `trials` (runs and logged models) count outcomes."""

    rows: list[Row] = field(default_factory=list)
    assets: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    trials: Counter[str] = field(default_factory=Counter)

    @property
    def in_the_way(self) -> int:
        return sum(row.in_the_way for row in self.rows)

    @property
    def changes(self) -> int:
        found = self.assets + self.versions + self.trials
        return found["created"] + found["changed"]


class Running:
    """One import into one installation."""

    def __init__(self, client: Client, reader: Reader, *, dry_run: bool) -> None:
        self._client = client
        self._reader = reader
        self._dry_run = dry_run
        self._path: str = getattr(reader, "path", IMPORTS)
        self._sent: set[str] = set()
        self._counted: set[str] = set()
        self.summary = Summary()

    def run(self, wanted: Wanted, tell: Callable[[str], None] = lambda title: None) -> Summary:
        """Everything that is wanted; `tell` hears the title of each that is done. Raises SourceFailed, Problem."""
        for batch in _batches(self._reader.assets(wanted)):
            plan = self._send(batch, dry=True)
            if self._dry_run:
                self._keep(batch, plan)
            else:
                self._do(batch, plan)
            for asset in batch:
                tell(asset.title)
        return self.summary

    def count(self) -> int | None:
        """How many assets there are, as far as the reader knows."""
        return self._reader.count()

    def _do(self, batch: list[FoundAsset], plan: list[dict[str, Any]]) -> None:
        """What is not the same is sent, with the bytes of what is new."""
        outcomes = {item["id"]: item["outcome"] for item in plan}
        todo: list[FoundAsset] = []
        decided: list[dict[str, Any]] = []
        for asset in batch:
            ids = [version.document["id"] for version in asset.versions]
            moved = [version for version, id in zip(asset.versions, ids, strict=True) if outcomes.get(id) in _TODO]
            if outcomes.get(asset.document["id"]) in _TODO or moved:
                todo.append(FoundAsset(asset.document, self._with_bytes(moved, outcomes, decided)))
                sent = {asset.document["id"], *(version.document["id"] for version in moved)}
                decided += [item for item in plan if item["id"] in ids and item["id"] not in sent]
            else:
                mine = {asset.document["id"], *ids}
                decided += [item for item in plan if item["id"] in mine]
        self._keep(batch, decided + (self._send(todo, dry=False) if todo else []))

    def _with_bytes(
        self, versions: list[FoundVersion], outcomes: dict[str, str], decided: list[dict[str, Any]]
    ) -> list[FoundVersion]:
        found = []
        for version in versions:
            document = version.document
            if version.fetch is not None and outcomes.get(document["id"]) == "created":
                try:
                    document = document | version.fetch(self._upload)
                except (SourceFailed, Problem, OSError) as error:
                    decided.append(_refused(document["id"], document.get("number"), str(error)))
                    continue
            found.append(FoundVersion(document))
        return found

    def run_trials(self, found: Iterator[Trials], tell: Callable[[str], None] = lambda title: None) -> Summary:
        """Runs and logged models, some of an experiment at a time; of new and changed ones everything is fetched."""
        for trials in found:
            name, kinds = str(trials.experiment["name"]), {"runs": trials.runs, "models": trials.models}
            plan = {item["id"]: item for item in self._send_trials(trials.experiment, _documents(kinds), dry=True)}
            for kind, ones in kinds.items():
                for one in ones:
                    item = plan[one.document["id"]]
                    if not self._dry_run and item["outcome"] in _TODO:
                        item = self._do_trial(trials.experiment, kind, one) | {"outcome": item["outcome"]}
                    row = Row(f"{kind[:-1]} of {name}", **item)
                    self.summary.trials[row.outcome] += 1
                    if row.outcome != "same":
                        self.summary.rows.append(row)
                    tell(row.title)
        return self.summary

    def _do_trial(self, experiment: dict[str, Any], kind: str, one: FoundTrial) -> dict[str, Any]:
        """All values and files. A run with many values is sent as one that still runs, until the last of them."""
        try:
            document = one.document | one.fetch(self._upload)
        except (SourceFailed, Problem, OSError) as error:
            return _refused(one.document["id"], None, str(error))
        points = document.get("metrics", [])
        early: dict[str, Any] = {"files": []}
        if kind == "runs":
            early |= {"ended_ms": None, "status": "RUNNING"}
        for start in range(0, max(len(points) - MOST_POINTS, 0), MOST_POINTS):
            part = document | early | {"metrics": points[start : start + MOST_POINTS]}
            self._send_trials(experiment, {kind: [part]}, dry=False)
        last = document | {"metrics": points[-(len(points) % MOST_POINTS or MOST_POINTS) :] if points else []}
        (item,) = self._send_trials(experiment, {kind: [last]}, dry=False)
        return item

    def _send_trials(
        self, experiment: dict[str, Any], documents: dict[str, list[dict[str, Any]]], *, dry: bool
    ) -> list[dict[str, Any]]:
        source = {"kind": self._reader.kind, "name": self._reader.name}
        body = {"source": source, "dry_run": dry, "experiment": experiment, **documents}
        try:
            items: list[dict[str, Any]] = self._post(body, RUNS)["items"]
            return items
        except Problem as problem:
            if problem.status not in (413, 422):
                raise
            each = [(kind, one) for kind, ones in documents.items() for one in ones]
            if len(each) == 1:
                return [_refused(each[0][1]["id"], None, str(problem))]
            return [item for kind, one in each for item in self._send_trials(experiment, {kind: [one]}, dry=dry)]

    def _upload(self, file: BinaryIO) -> tuple[str, int]:
        """Hashed first, so that bytes that were sent before are not sent again."""
        start, sha, size = file.tell(), hashlib.sha256(), 0
        while chunk := file.read(CHUNK):
            sha.update(chunk)
            size += len(chunk)
        digest = f"sha256:{sha.hexdigest()}"
        if digest not in self._sent:
            file.seek(start)
            self._client.request(
                "PUT", f"/registry/v1/artefacts/{digest}", content=_chunks(file), headers={"content-length": str(size)}
            )
            self._sent.add(digest)
        return digest, size

    def _send(self, assets: list[FoundAsset], *, dry: bool) -> list[dict[str, Any]]:
        """The registry's word on each. What it cannot read is refused alone, and does not stop the others."""
        body = {
            "source": {"kind": self._reader.kind, "name": self._reader.name},
            "dry_run": dry,
            "assets": [{**one.document, "versions": [each.document for each in one.versions]} for one in assets],
        }
        try:
            items: list[dict[str, Any]] = self._post(body)["items"]
            return items
        except Problem as problem:
            if problem.status not in (413, 422):
                raise
            first = assets[0]
            if len(assets) > 1:
                return [item for asset in assets for item in self._send([asset], dry=dry)]
            if not first.versions:
                return [_refused(first.document["id"], None, str(problem))]
            if len(first.versions) == 1:
                alone = self._send([FoundAsset(first.document)], dry=dry)
                document = first.versions[0].document
                return [*alone, _refused(document["id"], document.get("number"), str(problem))]
            half = len(first.versions) // 2
            halves = (first.versions[:half], first.versions[half:])
            found = [self._send([FoundAsset(first.document, versions)], dry=dry) for versions in halves]
            return found[0] + found[1][1:]

    def _post(self, body: dict[str, Any], path: str | None = None) -> Any:
        """Sending the same import again does what is left of it: no Idempotency-Key, which would stand in its way."""
        for attempt in range(1, TRIES + 1):
            try:
                return self._client.request("POST", path or self._path, json=body, headers={})
            except httpx.TransportError:
                if attempt == TRIES:
                    raise
            except Problem as problem:
                if problem.status not in (409, 502, 503, 504) or attempt == TRIES:
                    raise
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    def _keep(self, batch: list[FoundAsset], items: list[dict[str, Any]]) -> None:
        titles: dict[str, str] = {}
        versions: set[str] = set()
        for asset in batch:
            titles[asset.document["id"]] = asset.title
            for version in asset.versions:
                titles[version.document["id"]] = asset.title
                versions.add(version.document["id"])
        for item in items:
            row = Row(titles.get(item["id"], ""), **item)
            if item["id"] in versions:
                self.summary.versions[row.outcome] += 1
            elif item["id"] not in self._counted:  # an asset that is sent in parts is one
                self.summary.assets[row.outcome] += 1
                self._counted.add(item["id"])
            if row.outcome != "same" or row.in_the_way or row.reason:
                self.summary.rows.append(row)


_TODO = ("created", "changed")


def _documents(kinds: dict[str, list[FoundTrial]]) -> dict[str, list[dict[str, Any]]]:
    return {kind: [one.document for one in ones] for kind, ones in kinds.items()}


def _refused(id: str, version: int | None, reason: str) -> dict[str, Any]:
    return {"id": id, "urn": "", "version": version, "outcome": "refused", "differences": [], "reason": reason[:1000]}


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _batches(assets: Iterator[FoundAsset]) -> Iterator[list[FoundAsset]]:
    """Requests of a size that is answered soon. What has many versions is sent in parts, its aliases with the last."""
    batch: list[FoundAsset] = []
    versions = size = 0
    for part in (part for asset in assets for part in _parts(asset)):
        weight = sum(len(json.dumps(version.document, default=str)) for version in part.versions)
        if batch and (
            len(batch) >= MOST_ASSETS or versions + len(part.versions) > MOST_VERSIONS or size + weight > MOST_JSON
        ):
            yield batch
            batch, versions, size = [], 0, 0
        batch.append(part)
        versions, size = versions + len(part.versions), size + weight
    if batch:
        yield batch


def _parts(asset: FoundAsset) -> Iterator[FoundAsset]:
    part: list[FoundVersion] = []
    size = 0
    early = {key: value for key, value in asset.document.items() if key not in ("aliases", "labels")}
    for version in asset.versions:
        weight = len(json.dumps(version.document, default=str))
        if part and (len(part) >= MOST_VERSIONS or size + weight > MOST_JSON):
            yield FoundAsset(early, part)
            part, size = [], 0
        part.append(version)
        size += weight
    yield FoundAsset(asset.document, part)


def environment(*names: str) -> str | None:
    """The first of these variables that is set."""
    return next((value for name in names if (value := os.environ.get(name))), None)
