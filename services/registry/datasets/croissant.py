"""Croissant 1.0 and 1.1 in, 1.1 out. Pure.

Read as the compact JSON-LD that everybody writes; what Croissant has no word for (splits, rows, retention) is written
under a namespace of ours, and read back from it, so that out and in again is the same manifest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import ValidationError

from services.registry.errors import CroissantRefused
from shared.events.base import AssetRef
from shared.events.upstream import Column, DatasetFile, Manifest, Revision

VERSIONS = ("http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/1.1")
OURS = "urn:mintmark:croissant#"
Split = Literal["train", "validation", "test", "golden"]
FORMATS = {
    "text/csv": "csv",
    "application/csv": "csv",
    "application/x-parquet": "parquet",
    "application/vnd.apache.parquet": "parquet",
    "application/parquet": "parquet",
    "application/jsonlines": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
}
WRITTEN = {"csv": "text/csv", "parquet": "application/x-parquet", "jsonl": "application/jsonlines"}
TYPES = {"text": "sc:Text", "integer": "sc:Integer", "float": "sc:Float", "boolean": "sc:Boolean", "date": "sc:Date"}
SPLIT_WORDS: dict[str, Split] = {
    "golden": "golden",
    "gold": "golden",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "train": "train",
}
_SCHEMA_ORG = ("sc:", "schema:", "https://schema.org/", "http://schema.org/")
_CROISSANT = ("cr:", "http://mlcommons.org/croissant/")
PREFIXES = (*_SCHEMA_ORG, *_CROISSANT, "dct:", "http://purl.org/dc/terms/", "mm:", OURS)


@dataclass(frozen=True, slots=True)
class Known:
    """What is held here of a file: its size, and its rows where they could be counted."""

    size: int
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A manifest, what was left out of it and why, and what the dataset is called and said to be."""

    manifest: Manifest
    name: str
    description: str
    notes: tuple[str, ...]


def digests(document: Any) -> list[tuple[str, str]]:
    """Digest and format of each file that would be taken. Raises CroissantRefused."""
    return [(digest, form) for _, digest, form in _files(_checked(document), [])]


def read(document: Any, known: Mapping[str, Known], *, split: Split = "train", label: str | None = None) -> Read:
    """The manifest that a Croissant description stands for. Raises CroissantRefused with what is missing."""
    root, notes = _checked(document), list[str]()
    files = []
    for file, digest, form in _files(root, notes):
        files.append(_file(file, digest, form, known.get(digest), split, notes))
    if not files:
        raise CroissantRefused("there is no csv, parquet or jsonl file in `distribution`; " + "; ".join(notes)[:1000])
    licence = _texts(root.get("license"))
    if not licence:
        raise CroissantRefused("`license` is missing")
    source = (
        _texts(root.get("source")) or _texts(root.get("url")) or _texts(root.get("sameAs")) or [str(root.get("name"))]
    )[0]
    retention, revision = root.get("retentionDays"), root.get("revision")
    try:
        manifest = Manifest(
            files=tuple(files),
            label=label or _text(root.get("label")),
            sensitive=tuple(_texts(root.get("sensitiveColumns"))),
            source=source,
            licence=licence[0],
            sensitivity=root.get("sensitivity", "internal"),
            retention_days=retention if type(retention) is int else None,
            columns=_columns(root),
            consent=_text(root.get("consent")),
            revision=Revision.model_validate(_keys(revision)) if isinstance(revision, dict) else None,
        )
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise CroissantRefused(f"{where}: {error.errors()[0]['msg']}") from None
    return Read(manifest, str(root["name"]), _text(root.get("description")) or "", tuple(notes))


def write(ref: AssetRef, manifest: Manifest, description: str, registered_at: datetime, address: str) -> dict[str, Any]:
    """A dataset version as Croissant 1.1; files are named by where this installation gives them out."""
    files = [
        {
            "@type": "cr:FileObject",
            "@id": _id(number, file.path),
            "name": file.path,
            "contentUrl": f"{address}/registry/v1/artefacts/{file.digest}",
            "contentSize": f"{file.size} B",
            "encodingFormat": WRITTEN[file.format],
            "sha256": file.digest.removeprefix("sha256:"),
            "mm:split": file.split,
            "mm:rows": file.rows,
        }
        for number, file in enumerate(manifest.files)
    ]
    ours = {
        "mm:label": manifest.label,
        "mm:sensitiveColumns": list(manifest.sensitive),
        "mm:sensitivity": manifest.sensitivity,
        "mm:retentionDays": manifest.retention_days,
        "mm:consent": manifest.consent,
        "mm:revision": manifest.revision.model_dump() if manifest.revision else None,
    }
    is_address = re.match(r"https?://", manifest.source) is not None
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSIONS[-1],
        "name": ref.name,
        "description": description or f"{ref}",
        "version": f"{ref.version}.0.0",
        "datePublished": registered_at.date().isoformat(),
        "license": manifest.licence,
        "url": manifest.source if is_address else f"{address}/registry/v1/datasets/{ref.name}",
        "mm:source": manifest.source,
        "citeAs": f"{ref} {ref.digest}",
        "distribution": files,
        "recordSet": [_record_set(*one, manifest) for one in enumerate(manifest.files)] if manifest.columns else None,
        **ours,
    }
    return without_nothing(document)


def without_nothing(document: dict[str, Any]) -> dict[str, Any]:
    """Without the keys that say nothing."""
    return {key: value for key, value in document.items() if value not in (None, [], "")}


def _id(number: int, name: str) -> str:
    """A name as Croissant's readers take an @id: without blanks, and no two the same."""
    return f"{number}-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}"


def _record_set(number: int, file: DatasetFile, manifest: Manifest) -> dict[str, Any]:
    name = f"rows-{_id(number, file.path)}"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [
            without_nothing(
                {
                    "@type": "cr:Field",
                    "@id": f"{name}/{_id(place, column.name)}",
                    "name": column.name,
                    "description": column.description,
                    "dataType": TYPES.get(column.type, "sc:DateTime" if column.type == "datetime" else "sc:Text"),
                    "mm:type": column.type,
                    "mm:nullable": column.nullable,
                    "source": {"fileObject": {"@id": _id(number, file.path)}, "extract": {"column": column.name}},
                }
            )
            for place, column in enumerate(manifest.columns)
        ],
    }


def _checked(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or "@context" not in document:
        raise CroissantRefused("this is no JSON-LD: there is no @context")
    root = _keys(document)
    if "Dataset" not in str(document.get("@type")):
        raise CroissantRefused("the description's @type is not sc:Dataset; expanded JSON-LD and @graph are not read")
    conforms = _texts(root.get("conformsTo"))
    if not any(version in VERSIONS for version in conforms):
        raise CroissantRefused(
            f"conformsTo is one of {' or '.join(VERSIONS)}, not {', '.join(conforms) or 'missing'}"[:500]
        )
    if not _text(root.get("name")):
        raise CroissantRefused("`name` is missing")
    return root


def _files(root: dict[str, Any], notes: list[str]) -> list[tuple[dict[str, Any], str, str]]:
    """Files that can be taken, each with its digest and format; what cannot be is noted, or refused."""
    found = []
    for one in _list(root.get("distribution")):
        file = _keys(one) if isinstance(one, dict) else {}
        name = str(file.get("name") or file.get("@id") or "?")[:200]
        if "FileSet" in str(file.get("@type")):
            notes.append(f"{name}: a FileSet, whose files are not listed")
            continue
        form = next(
            (FORMATS[kind.lower()] for kind in _texts(file.get("encodingFormat")) if kind.lower() in FORMATS), None
        )
        if form is None:
            notes.append(f"{name}: {file.get('encodingFormat')} is not csv, parquet or jsonl")
            continue
        digest = str(file.get("sha256") or "").lower()
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            why = "only an md5, which can be forged" if file.get("md5") else "no sha256"
            raise CroissantRefused(f"{name} has {why}; a file is named by its SHA-256 here, so add `sha256`")
        found.append((file, "sha256:" + digest, form))
    return found


def _file(
    file: dict[str, Any], digest: str, form: str, known: Known | None, split: Split, notes: list[str]
) -> DatasetFile:
    name = str(file.get("name") or file.get("@id"))
    size = _size(file.get("contentSize"))
    if size is None:
        size = known.size if known else None
    if size is None:
        raise CroissantRefused(
            f"{name}: contentSize says no number of bytes, and the file is not held here; upload it first"
        )
    rows = file.get("rows")
    if type(rows) is not int or rows < 0:
        rows = known.rows if known else None
        if rows is None:
            notes.append(f"{name}: how many rows it has is not known; 0 is kept")
    named = file.get("split")
    address = _text(file.get("contentUrl"))
    try:
        return DatasetFile(
            path=name,
            digest=digest,
            size=size,
            rows=rows or 0,
            split=named if named in get_args(Split) else _split_of(name, split),
            format=form,
            uri=address if address and re.match(r"(https|s3|file)://", address) and known is None else None,
        )
    except ValidationError as error:
        raise CroissantRefused(f"{name[:100]}: {error.errors()[0]['msg']}") from None


def _split_of(name: str, otherwise: Split) -> Split:
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), otherwise)


def _columns(root: dict[str, Any]) -> tuple[Column, ...]:
    found: dict[str, Column] = {}
    for one in _list(root.get("recordSet")):
        for part in _list(_keys(one).get("field") if isinstance(one, dict) else None):
            field = _keys(part) if isinstance(part, dict) else {}
            source = _keys(field["source"]) if isinstance(field.get("source"), dict) else {}
            extract = _keys(source["extract"]) if isinstance(source.get("extract"), dict) else {}
            name = _text(extract.get("column"))
            if name and name not in found:
                kind = _text(field.get("type")) or _type_of(_texts(field.get("dataType")))
                said = _text(field.get("description")) or ""
                nullable = field.get("nullable") is not False
                found[name] = Column(name=name[:200], type=kind[:60], nullable=nullable, description=said[:2000])
    return tuple(found.values())


def _type_of(kinds: list[str]) -> str:
    words = [re.split(r"[:/#]", kind)[-1].lower() for kind in kinds]
    return next((word for word in words if word), "text")


def _size(value: Any) -> int | None:
    if type(value) is int:
        return value
    match = re.fullmatch(r"\s*([0-9]{1,18})\s*(B|bytes?)?\s*", str(value or ""), re.IGNORECASE)
    return int(match[1]) if match else None


def _keys(document: dict[str, Any]) -> dict[str, Any]:
    """By their last names: `sc:name`, `https://schema.org/name` and `name` are one."""
    return {_plain(key): value for key, value in document.items()}


def _plain(key: str) -> str:
    return next((key[len(prefix) :] for prefix in PREFIXES if key.startswith(prefix)), key)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _texts(value: Any) -> list[str]:
    return [text for text in map(_text, _list(value)) if text]


def _text(value: Any) -> str | None:
    """A text, however it is wrapped: a value, a node with an @id, a licence with a name, a text by language."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        inner = _keys(value)
        for key in ("@value", "name", "url", "@id", "en"):
            if isinstance(inner.get(key), str):
                return str(inner[key])
    return None


_CR = [
    "citeAs",
    "column",
    "equivalentProperty",
    "extract",
    "field",
    "fileProperty",
    "fileObject",
    "fileSet",
    "format",
    "includes",
    "isLiveDataset",
    "jsonPath",
    "key",
    "md5",
    "parentField",
    "path",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "separator",
    "source",
    "subField",
    "transform",
    "arrayShape",
    "isArray",
    "containedIn",
]
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{word: f"cr:{word}" for word in _CR},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "mm": OURS,
    "sc": "https://schema.org/",
}
