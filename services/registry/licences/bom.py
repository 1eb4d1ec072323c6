"""A version's bill of material: CycloneDX 1.7, with the model card that it has for machine learning. Pure.

The same state gives the same document to the byte: the serial number is made from the version's digest, the time is the
newest of what is told, and `version` counts the evaluations in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from typing import Any
from uuid import UUID, uuid5

from services.registry.domain.lineage import Finding
from services.registry.licences import expressions
from services.registry.licences.closure import Closure, Part
from services.registry.licences.obligations import Judgement
from services.registry.licences.terms import Terms
from services.registry.scanning import Scan, Statement

MEDIA_TYPE = "application/vnd.cyclonedx+json; version=1.7"
SERIALS = UUID("5b3f1f0e-6c2c-5a53-9d4b-6d1e7c0b7a11")
FORMAT_CHECKS = "1"
"""Rises when `formats.py` looks at more than it did."""

KINDS = {"dataset": "data", "prompt": "data", "retriever": "data", "bundle": "file"}
SEVERITY = {"conflict": "conflicts with", "review": "needs a look for"}
Document = dict[str, Any]


def build(
    closure: Closure,
    judgement: Judgement,
    findings: Iterable[Finding],
    scans: Mapping[str, Scan],
    base_url: str,
) -> Document:
    """The document. `findings` are the root's, `scans` by digest of artefact."""
    root = closure.root
    evaluations = [one for one in findings if one.kind == "evaluation" and "measures" in one.document]
    parts = [reached.part for reached in closure.reached]
    times = [root.registered_at, *(one.at for one in evaluations)]
    used: dict[str, list[str]] = {part.node: [] for part in (root, *parts)}
    for user, part in closure.uses:
        used[user].append(part)
    component = _component(root, base_url)
    if root.kind not in ("dataset", "prompt"):
        component["modelCard"] = _card(closure, judgement, evaluations)
    component["pedigree"] = _pedigree(closure)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid5(SERIALS, f'{root.node} {root.digest}')}",
        "version": 1 + len(evaluations),
        "metadata": {
            "timestamp": _time(max(times)),
            "tools": {"components": [_tool("mintmark-registry", version_of("mintmark-platform"))]},
            "component": component,
        },
        "components": [_component(part, base_url) for part in parts],
        "dependencies": [{"ref": node, "dependsOn": sorted(set(parts))} for node, parts in sorted(used.items())],
        "compositions": [
            {
                "aggregate": "incomplete" if closure.missing or closure.truncated else "complete",
                "assemblies": [root.node],
            }
        ],
        "annotations": [_annotation(part, one, at) for part, one, at in _scanned([root, *parts], scans)],
    }


def _component(part: Part, base_url: str) -> Document:
    artefact = part.content.get("artefact")
    kind = part.content["kind"]
    found: Document = {
        "type": KINDS.get(kind, "machine-learning-model"),
        "bom-ref": part.node,
        "name": part.name,
        "version": str(part.version),
        "authors": [{"name": part.author}],
        "hashes": [{"alg": "SHA-256", "content": artefact["digest"][7:]}] if artefact else [],
        "externalReferences": [
            _reference("other", f"{base_url}/registry/v1/assets/{kind}/{part.name}/versions/{part.version}")
        ],
        "properties": [
            {"name": "mintmark:digest", "value": part.digest},
            {"name": "mintmark:kind", "value": kind},
            *([{"name": "mintmark:format", "value": artefact["format"]}] if artefact else []),
            *({"name": f"mintmark:tag:{key}", "value": value} for key, value in sorted(part.tags.items())),
        ],
    }
    if part.description:
        found["description"] = part.description
    if artefact:
        address = f"{base_url}/registry/v1/artefacts/{artefact['digest']}"
        found["externalReferences"].append({**_reference("distribution", address), "hashes": found["hashes"]})
    if part.licence:
        found["licenses"] = _licences(part.licence)
    if found["type"] == "data":
        found["data"] = [_data(part)]
    return found


def _licences(written: str) -> list[Document]:
    """By SPDX's id or expression where it has one; else each by its name, with the address of its text."""
    reading = expressions.read(written)
    if expressions.is_spdx(reading):
        return [{"expression": reading.expression, "acknowledgement": "declared"}]
    terms = {term.key: term for one in reading.alternatives for term in one}
    if not terms:
        return [{"license": {"name": written, "acknowledgement": "declared"}}]
    return [{"license": _named(term)} for term in terms.values()]


def _named(term: Terms) -> Document:
    found: Document = {"id": term.spdx} if term.spdx else {"name": term.name}
    found["acknowledgement"] = "declared"
    if term.source.startswith("https://"):
        found["url"] = term.source
    return found


def _data(part: Part) -> Document:
    manifest = part.content.get("manifest")
    if manifest is None:
        return {"type": "definition", "name": part.name}
    counts: dict[str, int] = {}
    for file in manifest["files"]:
        counts[file["split"]] = counts.get(file["split"], 0) + file["rows"]
    return {
        "type": "dataset",
        "name": part.name,
        "classification": manifest["sensitivity"],
        "sensitiveData": list(manifest["sensitive"]),
        "description": f"Source: {manifest['source']}",
        "contents": {
            "properties": [
                *({"name": f"rows:{split}", "value": str(rows)} for split, rows in sorted(counts.items())),
                *({"name": f"sha256:{file['path']}", "value": file["digest"][7:]} for file in manifest["files"]),
            ]
        },
    }


def _card(closure: Closure, judgement: Judgement, evaluations: list[Finding]) -> Document:
    root = closure.root
    content, signature = root.content, root.content["signature"]
    datasets = [one.part.node for one in closure.reached if one.part.kind == "dataset" and len(one.path) == 1]
    parameters: Document = {
        "datasets": [{"ref": node} for node in datasets],
        "inputs": [{"format": _tensor(tensor)} for tensor in signature["inputs"]],
        "outputs": [{"format": _tensor(tensor)} for tensor in signature["outputs"]],
    }
    if content["task"]:
        parameters["task"] = content["task"]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": _metrics(root, evaluations)},
        "considerations": _considerations(root, judgement),
        "properties": [
            {"name": f"mintmark:parameter:{key}", "value": str(value)}
            for key, value in sorted((content["training"].get("parameters") or {}).items())
        ],
    }


def _tensor(tensor: Document) -> str:
    return f"{tensor['name']}: {tensor['datatype']} {list(tensor['shape'])}"


def _metrics(root: Part, evaluations: list[Finding]) -> list[Document]:
    found: list[Document] = [
        {"type": name, "value": repr(value), "slice": "claimed at submission"}
        for name, value in sorted(root.metrics.items())
    ]
    for evaluation in sorted(evaluations, key=lambda one: (one.at, one.id)):
        golden = evaluation.document["golden_set"]
        for name, measure in sorted(evaluation.document["measures"].items()):
            found.append(
                {
                    "type": name,
                    "value": repr(measure["value"]),
                    "slice": f"{golden['urn']}@{golden['version']}",
                    "confidenceInterval": {
                        "lowerBound": repr(measure["low"]),
                        "upperBound": repr(measure["high"]),
                    },
                }
            )
    return found


def _considerations(root: Part, judgement: Judgement) -> Document:
    limits = [f"{gap.node}: licence: {gap.reason}" for gap in judgement.gaps]
    limits += [f"{one.kind}, {SEVERITY[one.severity]} its licence: {one.reason}" for one in judgement.conflicts]
    uses = [one.text for one in judgement.obligations if one.kind in ("restrictions", "users", "outputs")]
    found: Document = {"technicalLimitations": limits}
    if root.description:
        found["useCases"] = [root.description]
    if uses:
        found["ethicalConsiderations"] = [{"name": text} for text in dict.fromkeys(uses)]
    return found


def _pedigree(closure: Closure) -> Document:
    bases = [one.part for one in closure.reached if len(one.path) == 1 and one.path[0].relation == "base"]
    ancestors: list[Document] = [
        {"type": "machine-learning-model", "name": part.name, "version": str(part.version)} for part in bases
    ]
    ancestors += [
        {"type": "machine-learning-model", "name": path[0].node.split("/", 1)[-1], "description": "not registered here"}
        for path in closure.missing
        if len(path) == 1 and path[0].relation == "base"
    ]
    return {"ancestors": ancestors}


def statements_of(part: Part, scan: Scan | None) -> tuple[tuple[Statement, ...], datetime]:
    """What looked at a version's artefact: the check of its format, which every one goes through, and scanners."""
    artefact = part.content.get("artefact")
    if artefact is None:
        return (), part.registered_at
    check = Statement(
        scanner="mintmark-formats",
        version=FORMAT_CHECKS,
        result="suspicious" if scan else "clean",
        findings=(
            f"the bytes are {artefact['format']}"
            + (", which holds pickles" if scan else "; no pickle was found in what was looked at"),
        ),
    )
    return (check, *(scan.statements if scan else ())), scan.at if scan else part.registered_at


def _scanned(parts: list[Part], scans: Mapping[str, Scan]) -> Iterable[tuple[Part, Statement, datetime]]:
    for part in parts:
        artefact = part.content.get("artefact")
        statements, at = statements_of(part, scans.get(artefact["digest"]) if artefact else None)
        for statement in statements:
            yield part, statement, at


def _annotation(part: Part, statement: Statement, at: datetime) -> Document:
    return {
        "bom-ref": f"scan:{part.node}:{statement.scanner}",
        "subjects": [part.node],
        "annotator": {"component": _tool(statement.scanner, statement.version)},
        "timestamp": _time(at),
        "text": f"{statement.result}: {'; '.join(statement.findings) or 'nothing found'}",
    }


def _tool(name: str, version: str) -> Document:
    return {"type": "application", "name": name, "version": version}


def _reference(kind: str, url: str) -> Document:
    return {"type": kind, "url": url}


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
