"""What an MLflow model folder says of itself: which file is the model, in which form, and what it takes and gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from shared.events.base import Signature

MLMODEL = "MLmodel"
MOST_VALUES = 20_000
DEEPEST = 30
"""As many values, nested as deep, are read; MLflow writes some 100."""

FILES = {"lightgbm": ("data", "lightgbm"), "onnx": ("data", "onnx"), "sklearn": ("pickled_model", "skops")}
"""By flavor: the key that names its file, and the form that we check and serve."""

DATATYPES = {
    "boolean": "BOOL", "bool": "BOOL", "integer": "INT32", "int32": "INT32", "long": "INT64", "int64": "INT64",
    "float": "FP32", "float32": "FP32", "double": "FP64", "float64": "FP64", "string": "BYTES", "str": "BYTES",
    "object": "BYTES", "int8": "INT8", "int16": "INT16", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32",
    "uint64": "UINT64", "float16": "FP16", "binary": "BYTES", "datetime": "BYTES",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model file within its folder, in one of the forms that are served here."""

    file: str
    form: str
    signature: Signature


def read(mlmodel: bytes) -> Packaged | None:
    """What the file MLmodel says; None where it names no model that could be served here. Takes its time: YAML."""
    document = _loaded(mlmodel)
    flavors = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavors, dict):
        return None
    for flavor, (key, form) in FILES.items():
        said = flavors.get(flavor)
        file = said.get(key) if isinstance(said, dict) else None
        if isinstance(file, str) and "/" not in file and file not in ("", ".", ".."):
            return Packaged(file, form, _signature(document.get("signature")))
    return None


def _loaded(mlmodel: bytes) -> Any:
    """The document; None where it is none, or made to break who reads it."""
    import yaml  # nothing else of the registry reads it

    depth = values = 0
    try:
        # Events come one by one, whatever the text would grow to: it is looked through before anything is built.
        for event in yaml.parse(mlmodel, Loader=yaml.SafeLoader):
            values += 1
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST or values > MOST_VALUES:
                return None
        return yaml.safe_load(mlmodel)
    except Exception:  # PyYAML's constructors raise KeyError, IndexError and AttributeError, too, for a wrong value
        return None


def _signature(said: Any) -> Signature:
    """Columns and tensors as ours; an empty signature where one of them has a type that we do not know."""
    if not isinstance(said, dict):
        return Signature()
    try:
        return Signature.model_validate(
            {name: _tensors(said.get(name), name.removesuffix("s")) for name in ("inputs", "outputs")}
        )
    except (ValidationError, KeyError, ValueError, TypeError, RecursionError):
        return Signature()


def _tensors(text: Any, unnamed: str) -> list[dict[str, Any]]:
    found = []
    for number, one in enumerate(json.loads(text) if isinstance(text, str) else []):
        if one["type"] == "tensor":
            spec = one["tensor-spec"]
            datatype, shape = DATATYPES[spec["dtype"]], spec["shape"]
        else:
            datatype, shape = DATATYPES[one["type"]], [-1, 1]
        name = one.get("name") or (unnamed if number == 0 else f"{unnamed}-{number}")
        found.append({"name": name, "datatype": datatype, "shape": shape, "nullable": not one.get("required", True)})
    return found
