"""From a registered version and its approval to a bundle: what the manifest says, and where each word is from.

Labels and background row are read from the training parameters `labels` and `background`: those are covered by the
version's digest, so they are what was approved. Without labels, classes are 0, 1, … by position.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from services.deployer import bundle as bundles
from services.deployer.bundle import Bundle, BundleRefused, Feature, Manifest
from services.deployer.domain import Approval, Asset, model_name
from services.deployer.errors import ArtefactDamaged, ArtefactMissing, NotDeployable
from shared.artefacts import ArtefactStore
from shared.errors import IntegrityFailed, NotFound
from shared.events.base import Json, Signature, Tensor
from shared.ids import canonical

GUARDRAILS: Final = "guardrails.json"
MODEL_FILES: Final = {"lightgbm": "model.txt", "skops": "model.skops", "onnx": "model.onnx"}
DATATYPES: Final[Mapping[str, Literal["FP64", "FP32", "INT64"]]] = {
    "FP64": "FP64",
    "FP32": "FP32",
    "FP16": "FP32",
    **dict.fromkeys(("INT64", "INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8", "BOOL"), "INT64"),
}
MOST_HEADER_BYTES: Final = 4 << 20
CHUNK_BYTES: Final = 1 << 20


async def fetch(store: ArtefactStore, digest: str, path: Path) -> Path:
    """The bytes of a digest as a file. Raises ArtefactMissing, ArtefactDamaged."""
    try:
        with path.open("wb") as file:
            async for chunk in store.read(digest):
                file.write(chunk)
    except NotFound:
        raise ArtefactMissing(f"artefact {digest} is not in the store; submit the version again with it") from None
    except IntegrityFailed:
        raise ArtefactDamaged(f"the bytes of artefact {digest} in the store are others now; restore them") from None
    return path


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """A local file, piece by piece."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def pack(folder: Path, asset: Asset, approval: Approval, workspace: str, model: Path, key: Ed25519PrivateKey) -> Bundle:
    """The signed bundle, in `folder`. Raises NotDeployable or BundleRefused. Blocks."""
    manifest = manifest_of(asset, approval, workspace, model)
    files = {manifest.model_file: model}
    if asset.guardrails:
        files[GUARDRAILS] = folder / GUARDRAILS
        files[GUARDRAILS].write_bytes(canonical(list(asset.guardrails)))
    made = bundles.build(folder, manifest, files, key)
    assert asset.artefact is not None
    if f"sha256:{made.members[manifest.model_file].sha256}" != asset.artefact.digest:
        raise BundleRefused(f"the file packed is not the artefact {asset.artefact.digest}; it changed meanwhile")
    return made


def manifest_of(asset: Asset, approval: Approval, workspace: str, model: Path) -> Manifest:
    """What the bundle will say. Raises NotDeployable with what is missing."""
    if asset.kind != "model" or asset.artefact is None:
        raise NotDeployable(f"{asset.ref} is a {asset.kind}; only a model with an artefact is served")
    format_ = asset.artefact.format
    if format_ not in MODEL_FILES:
        raise NotDeployable(f"{asset.ref} has format {format_!r}; {', '.join(MODEL_FILES)} are served")
    header = _lightgbm_header(model) if format_ == "lightgbm" else {}
    task = _task(asset, header)
    parameters = asset.training.parameters
    try:
        return Manifest(
            asset=asset.ref.urn,
            version=str(asset.ref.version),
            asset_digest=asset.ref.digest,
            workspace=workspace,
            model_name=model_name(workspace, asset.ref),
            format=format_,
            model_file=MODEL_FILES[format_],
            task=task,
            labels=_labels(asset, task, header),
            features=_features(asset, header),
            background=parameters.get("background"),
            licence=asset.licence,
            evidence=approval.evidence,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise NotDeployable(f"{asset.ref} cannot be described to a server: {where}: {first['msg']}") from error


def guardrails_of(bundle: Bundle) -> tuple[Json, ...]:
    """The guards that the bundle carries, from its own bytes. Raises BundleRefused. Blocks."""
    return tuple(orjson.loads(bundle.read(GUARDRAILS))) if GUARDRAILS in bundle.members else ()


def signature_of(asset: Asset, manifest: Manifest) -> Signature:
    """What the served version takes, a tensor a feature in the order of its SHAP values, and gives."""
    inputs = [Tensor(name=one.name, datatype=one.datatype, nullable=one.nullable) for one in manifest.features]
    return Signature(inputs=tuple(inputs), outputs=asset.signature.outputs)


def _task(asset: Asset, header: Mapping[str, str]) -> Literal["binary", "multiclass", "regression"]:
    if "regression" in (asset.task or ""):
        return "regression"
    labels = asset.training.parameters.get("labels")
    if header:
        return "multiclass" if int(header.get("num_tree_per_iteration", "1")) > 1 else "binary"
    if isinstance(labels, list):
        return "multiclass" if len(labels) > 2 else "binary"
    return "multiclass" if _classes(asset) > 2 else "binary"


def _classes(asset: Asset) -> int:
    """How many classes the signature's outputs speak of: the widest last dimension, 2 where none is said."""
    return max([output.shape[-1] for output in asset.signature.outputs if len(output.shape) > 1], default=2)


def _labels(asset: Asset, task: str, header: Mapping[str, str]) -> tuple[Any, ...]:
    if task == "regression":
        return ()
    labels = asset.training.parameters.get("labels")
    if labels is not None:
        return tuple(labels) if isinstance(labels, list) else (labels,)
    if task == "binary":
        return (0, 1)
    return tuple(range(int(header["num_tree_per_iteration"]) if header else _classes(asset)))


def _features(asset: Asset, header: Mapping[str, str]) -> tuple[Feature, ...]:
    """The signature's inputs, one a feature; else the names in a LightGBM model, where any value may be missing."""
    own = header.get("feature_names", "").split()
    inputs = asset.signature.inputs
    if not inputs and own:
        return tuple(Feature(name=name, nullable=True) for name in own)
    if not inputs:
        raise NotDeployable(f"{asset.ref} has no inputs in its signature; submit it with them, in the model's order")
    if len(inputs) == 1 and (width := inputs[0].shape[-1]) > 1:
        names = own if len(own) == width else [f"{inputs[0].name}_{i}" for i in range(width)]
        return tuple(_feature(asset, inputs[0], name) for name in names)
    return tuple(_feature(asset, tensor, tensor.name) for tensor in inputs)


def _feature(asset: Asset, tensor: Tensor, name: str) -> Feature:
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None:
        raise NotDeployable(f"{asset.ref} takes {name!r} as {tensor.datatype}; only numbers are served")
    return Feature(name=name, datatype=datatype, nullable=tensor.nullable)


def _lightgbm_header(model: Path) -> dict[str, str]:
    """`key=value` lines before the first tree, read by us: a spoilt file can crash LightGBM itself."""
    with model.open("rb") as file:
        head = file.read(MOST_HEADER_BYTES)
    text = re.split(rb"\n(?:Tree=|end of trees)", head, maxsplit=1)[0].decode("utf-8", errors="replace")
    header = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if not header.get("num_tree_per_iteration", "").isdigit() or "feature_names" not in header:
        raise NotDeployable("this is not LightGBM's text format; save the booster with save_model")
    return header
