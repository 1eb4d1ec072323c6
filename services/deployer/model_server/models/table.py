"""The table of model formats, and the trial that a model must pass before it serves.

The trial believes nothing that the manifest says about the model: it runs rows of every kind that the manifest allows
and looks at what comes out, whether SHAP values add up, and how long it takes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import numpy as np

from services.deployer.bundle import Bundle, Manifest
from services.deployer.model_server.models import Explainer, Explanation, Floats, InputRefused, Model, ModelRefused

FORMATS: Final[Mapping[str, str]] = {"lightgbm": "lightgbm_text", "skops": "skops_model", "onnx": "onnx_model"}
"""Format to module. Imported when the first model of the format comes: scikit-learn alone is 60 MiB."""

PROBE_ROWS: Final = 16
ADDITIVITY: Final = 1e-6
"""Largest |base + sum(values) - raw|, relative to |raw| + 1: float32 inside a model keeps about seven digits."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that n rows take: `fixed + n * per_row`, measured at load."""

    fixed: float
    per_row: float

    def of(self, rows: int) -> float:
        return self.fixed + rows * self.per_row


@dataclass(frozen=True, slots=True)
class Served:
    """A model that passed its trial. `explainer` is a sentence where its predictions cannot be explained."""

    manifest: Manifest
    digest: str
    model: Model
    explainer: Explainer | str
    cost: Cost
    explained_cost: Cost


def load(bundle: Bundle) -> Served:
    """Raises ModelRefused, or BundleRefused when the bytes changed since the bundle was opened. Blocks."""
    manifest = bundle.manifest
    module = import_module(f"services.deployer.model_server.models.{FORMATS[manifest.format]}")
    model: Model = module.load(manifest, bundle.read(manifest.model_file))
    try:
        return _tried(bundle, model)
    except InputRefused as error:
        raise ModelRefused(f"the model fails on rows that its manifest allows: {error}") from error


def _tried(bundle: Bundle, model: Model) -> Served:
    rows = probes(bundle.manifest)
    _check_scores(bundle.manifest, model, rows)
    cost = _measure(lambda n: model.predict(rows[:n]))
    explainer, explained = model.explainer, Cost(0, 0)
    if isinstance(explainer, Explainer):
        explainer = _tried_explainer(explainer, model, rows)
    if isinstance(explainer, Explainer):
        explained = _measure(lambda n: model.explain(rows[:n]))
    return Served(bundle.manifest, bundle.digest, model, explainer, cost, explained)


def _tried_explainer(explainer: Explainer, model: Model, rows: Floats) -> Explainer | str:
    try:
        gap = additivity_gap(model.explain(rows))
    except InputRefused as error:
        return f"this model's predictions cannot be explained: {error}"
    if gap > ADDITIVITY:
        return f"the SHAP values of this model miss its score by {gap:.1e}, so they are not given out"
    return explainer


def additivity_gap(explanation: Explanation) -> float:
    total = explanation.base + explanation.values.sum(axis=-1)
    return float(np.max(np.abs(total - explanation.raw) / (np.abs(explanation.raw) + 1), initial=0))


def probes(manifest: Manifest) -> Floats:
    """Rows [PROBE_ROWS, f]: zeros, ones, the background, missing values where allowed, and the rest at random."""
    rng = np.random.default_rng(7)
    features = len(manifest.features)
    rows = rng.normal(size=(PROBE_ROWS, features)) * 10.0 ** rng.integers(-1, 4, size=(PROBE_ROWS, features))
    rows[0], rows[1] = 0, 1
    if manifest.background is not None:
        background = np.array(manifest.background, dtype=np.float64)
        # Around the background, where real rows are: the random rows alone may all fall into one leaf.
        rows[2:8] = background + rng.normal(size=(6, features)) * (np.abs(background) * 0.2 + 0.01)
        rows[2] = background
    whole = [i for i, feature in enumerate(manifest.features) if feature.datatype == "INT64"]
    rows[:, whole] = np.round(rows[:, whole])
    nullable = [i for i, feature in enumerate(manifest.features) if feature.nullable]
    rows[3, nullable] = np.nan
    fixed = [i for i in range(features) if i not in set(nullable)]
    rows[:, fixed] = np.nan_to_num(rows[:, fixed])  # a background may be missing where a request's value may not
    return rows


def _check_scores(manifest: Manifest, model: Model, rows: Floats) -> None:
    score = model.predict(rows).score
    shape = (len(rows), len(manifest.labels)) if manifest.task == "multiclass" else (len(rows),)
    if score.shape != shape:
        raise ModelRefused(f"the model's scores have the shape {score.shape}, the task {manifest.task!r} needs {shape}")
    if not np.isfinite(score).all():
        raise ModelRefused("the model gives a score that is not a number on rows that its manifest allows")
    if manifest.task != "regression" and (score.min() < 0 or score.max() > 1 + 1e-6):
        raise ModelRefused("the model's scores are not probabilities: they leave 0…1; train it with such an objective")


def _measure(run: Callable[[int], object]) -> Cost:
    def seconds(rows: int, times: int) -> float:
        best = float("inf")
        for _ in range(times):
            started = time.perf_counter()
            run(rows)
            best = min(best, time.perf_counter() - started)
        return best

    one, many = seconds(1, times=3), seconds(PROBE_ROWS, times=1)
    per_row = max(0.0, (many - one) / (PROBE_ROWS - 1))
    return Cost(max(0.0, one - per_row), per_row)
