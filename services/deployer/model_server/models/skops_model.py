"""scikit-learn models in the skops format, which holds no code; types that skops does not trust are refused.

That includes decision trees and forests since skops 0.16: scikit-learn follows the node indices in such a file without
bounds checks, so that a crafted one kills the process and every other model in it. As onnx they are served.
"""

import io
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from skops.io import get_untrusted_types, loads

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
from services.deployer.model_server.models.shapley import MAX_FEATURES, Enumeration, linear

MAX_UNPACKED_BYTES: Final = 4 << 30
"""A skops file is a zip; more than this is a bomb, not a model."""

COLUMNWISE: Final = frozenset(
    {"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "PowerTransformer", "QuantileTransformer"}
)
"""Steps whose output column i depends on input column i alone, so that a linear model behind them stays closed-form."""

OWN_LABELS: Final = frozenset({"FixedThresholdClassifier", "TunedThresholdClassifierCV", "SVC", "NuSVC"})
"""Classifiers whose `predict` is not the most probable class."""


class _Sklearn:
    def __init__(self, manifest: Manifest, estimator: Any) -> None:
        self._estimator = estimator
        self._binary = manifest.task == "binary"
        self._classifies = manifest.task != "regression"
        final = _steps(estimator)[-1]
        self._own_labels = type(final).__name__ in OWN_LABELS
        self._classes = {value: i for i, value in enumerate(estimator.classes_)} if self._own_labels else {}
        self._reference: Floats | None = None
        if manifest.background is not None:
            self._reference = np.array(manifest.background, dtype=np.float64)
        self._enumeration: Enumeration | None = None
        self.explainer: Explainer | str = self._choose_explainer(len(manifest.features))

    def _choose_explainer(self, features: int) -> Explainer | str:
        if self._reference is None:
            return "the bundle has no background row for SHAP values to compare with; build it with one"
        if _is_linear(self._estimator, features):
            return Explainer(
                "linear, closed form", "log-odds" if self._binary else "raw-score" if self._classifies else "value"
            )
        if features > MAX_FEATURES:
            return f"exact SHAP values of this kind of model need at most {MAX_FEATURES} features; it has {features}"
        self._enumeration = Enumeration(self._reference)
        return Explainer("exact enumeration", "probability" if self._classifies else "value")

    def _score(self, rows: Floats) -> Floats:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "X does not have valid feature names": load() has compared them
                if not self._classifies:
                    return np.asarray(self._estimator.predict(rows), dtype=np.float64)
                score = np.asarray(self._estimator.predict_proba(rows), dtype=np.float64)
        except ValueError as error:
            raise InputRefused(f"scikit-learn: {str(error).splitlines()[0]}") from error
        return score[:, 1] if self._binary else score

    def predict(self, rows: Floats) -> Scores:
        score = self._score(rows)
        if self._own_labels:
            return Scores(score, np.array([self._classes[v] for v in self._estimator.predict(rows)], dtype=np.int64))
        return Scores(score, labels_of(score) if self._classifies else None)

    def explain(self, rows: Floats) -> Explanation:
        assert self._reference is not None, "no explainer without a reference"
        if self._enumeration is not None:
            return self._enumeration.explain(rows, self._score)
        *steps, final = _steps(self._estimator)
        both = np.vstack([rows, self._reference])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for step in steps:
                    both = np.asarray(step.transform(both), dtype=np.float64)
        except ValueError as error:
            raise InputRefused(f"scikit-learn: {str(error).splitlines()[0]}") from error
        weights, intercept = np.asarray(final.coef_), np.asarray(final.intercept_)
        if weights.ndim == 2 and len(weights) == 1:
            weights, intercept = weights[0], intercept.reshape(-1)[0]
        return linear(both[:-1], both[-1], weights, intercept)


def load(manifest: Manifest, data: bytes) -> Model:
    """Raises ModelRefused for untrusted types, other features or classes than the manifest's, or no probabilities."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise ModelRefused(f"the skops file unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")
        untrusted = get_untrusted_types(data=data)
        if untrusted:
            raise ModelRefused(
                f"the model holds types that skops does not trust: {', '.join(sorted(untrusted)[:8])}; "
                "ship it as onnx (or lightgbm), or build it from scikit-learn's classes that skops trusts"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trained with another scikit-learn: the probe rows tell whether it runs
            estimator = loads(data, trusted=[])
    except ModelRefused:
        raise
    except Exception as error:  # skops raises whatever a malformed schema leads it to
        raise ModelRefused(f"this is not a skops file (skops.io.dump): {type(error).__name__}: {error}") from error
    _check(manifest, estimator)
    return _Sklearn(manifest, estimator)


def _check(manifest: Manifest, estimator: Any) -> None:
    needed = "predict" if manifest.task == "regression" else "predict_proba"
    if not hasattr(estimator, needed):
        raise ModelRefused(f"{type(estimator).__name__} has no {needed}, which the task {manifest.task!r} needs")
    takes = getattr(estimator, "n_features_in_", len(manifest.features))
    declared = [feature.name for feature in manifest.features]
    names = [str(name) for name in getattr(estimator, "feature_names_in_", declared)]
    if takes != len(declared) or names != declared:
        raise ModelRefused(f"the model takes {takes} features ({', '.join(names[:8])}), not those of the manifest")
    if manifest.task == "regression":
        return
    classes = [c.item() if isinstance(c, np.generic) else c for c in estimator.classes_]
    if classes not in (list(manifest.labels), list(range(len(manifest.labels)))):
        raise ModelRefused(f"the model's classes {classes[:8]} are not the manifest's labels {manifest.labels[:8]}")


def _steps(estimator: Any) -> Sequence[Any]:
    """The transformers of a pipeline and its final estimator; a bare estimator is a pipeline of one."""
    steps = getattr(estimator, "steps", None)
    return [estimator] if steps is None else [step for _, step in steps if step not in (None, "passthrough")]


def _is_linear(estimator: Any, features: int) -> bool:
    """Linear in columns that each come from one feature. The trial in `table.py` checks it."""
    *steps, final = _steps(estimator)
    coefficients = getattr(final, "coef_", None)
    if not hasattr(final, "intercept_") or not isinstance(coefficients, np.ndarray) or coefficients.ndim > 2:
        return False
    return coefficients.shape[-1] == features and all(type(step).__name__ in COLUMNWISE for step in steps)
