"""Loads a model from bytes, by its format, into one callable shape. Nothing here unpickles anything.

LightGBM and ONNX Runtime are native code: whoever loads the model of a stranger does it in a process that may die.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from services.evaluator.domain import Task
from services.evaluator.errors import ModelFormatUnknown, ModelIsPickle
from services.evaluator.models import lightgbm_text, onnx_graph, skops_file
from services.evaluator.models.model import Model, Predict

Loader = Callable[[bytes, Sequence[str] | None, Task | None], Model]

LOADERS: Mapping[str, Loader] = {
    "lightgbm": lightgbm_text.load,
    "skops": skops_file.load,
    "onnx": onnx_graph.load,
}


def load(data: bytes, format: str, *, features: Sequence[str] | None = None, task: Task | None = None) -> Model:
    """The model in `data`. `features` names its inputs in order where the file itself does not, `task` likewise.

    Raises ModelIsPickle, ModelFormatUnknown, ModelUntrusted, FeaturesUnknown, TaskMismatch or ModelRefused.
    """
    if data[:1] == b"\x80":  # PROTO, the first opcode of every pickle since protocol 2 (joblib's files, too)
        raise ModelIsPickle()
    loader = LOADERS.get(format)
    if loader is None:
        raise ModelFormatUnknown(f"the model format {format[:40]!r} is not known here; use {', '.join(LOADERS)}")
    return loader(data, features, task)


__all__ = ["LOADERS", "Loader", "Model", "Predict", "load"]
