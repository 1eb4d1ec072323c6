"""LightGBM models in their text form; SHAP values by TreeSHAP (`pred_contrib`), in the space of the raw score."""

import re
import sys

import numpy as np

from services.deployer.bundle import Manifest
from services.deployer.model_server.models import (
    Explainer,
    Explanation,
    Floats,
    InputRefused,
    Model,
    ModelRefused,
    Scores,
    labels_of,
)

# LightGBM imports scikit-learn wherever it finds it, for wrapper classes that nobody needs here: 3.1 s in place of 0.9.
_hidden = sys.modules.pop("sklearn", None)
sys.modules["sklearn"] = None  # type: ignore[assignment]
try:
    import lightgbm
finally:
    del sys.modules["sklearn"]
    if _hidden is not None:
        sys.modules["sklearn"] = _hidden


class _LightGBM:
    def __init__(self, manifest: Manifest, booster: lightgbm.Booster) -> None:
        self._booster = booster
        self._classes = len(manifest.labels) if manifest.task == "multiclass" else 1
        self._classifies = manifest.task != "regression"
        objective = {"binary": "log-odds", "multiclass": "raw-score", "regression": "value"}[manifest.task]
        self.explainer: Explainer | str = Explainer("lightgbm pred_contrib (TreeSHAP, path-dependent)", objective)

    def _run(self, rows: Floats, **how: bool) -> Floats:
        # One thread: a request's rows are few, and waking OpenMP costs more than it saves; requests run side by side.
        try:
            return np.asarray(self._booster.predict(rows, num_threads=1, **how), dtype=np.float64)
        except lightgbm.basic.LightGBMError as error:
            raise InputRefused(f"LightGBM: {error}") from error

    def predict(self, rows: Floats) -> Scores:
        score = self._run(rows)
        return Scores(score, labels_of(score) if self._classifies else None)

    def explain(self, rows: Floats) -> Explanation:
        contributions = self._run(rows, pred_contrib=True)
        raw = self._run(rows, raw_score=True)
        if self._classes > 1:
            contributions = contributions.reshape(len(rows), self._classes, -1)
        return Explanation(contributions[..., :-1], contributions[..., -1], raw)


def load(manifest: Manifest, data: bytes) -> Model:
    """Raises ModelRefused when the text is no LightGBM model or has other features than the manifest."""
    try:
        booster = lightgbm.Booster(model_str=data.decode("utf-8"))
        names = booster.feature_name()
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError, ValueError) as error:
        raise ModelRefused(f"this is not a LightGBM text model (Booster.save_model): {error}") from error
    declared = [re.sub(r"\s", "_", feature.name) for feature in manifest.features]  # LightGBM's own spelling
    unnamed = names == [f"Column_{i}" for i in range(len(names))]
    if len(names) != len(declared) or (names != declared and not unnamed):
        raise ModelRefused(f"the model takes the features {_few(names)}, the manifest declares {_few(declared)}")
    per_row = booster.num_model_per_iteration()
    wanted = len(manifest.labels) if manifest.task == "multiclass" else 1
    if per_row != wanted:
        raise ModelRefused(f"the model gives {per_row} scores a row, the task {manifest.task!r} needs {wanted}")
    return _LightGBM(manifest, booster)


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" … ({len(names)})" if len(names) > 8 else "")
