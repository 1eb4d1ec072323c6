"""scikit-learn models as skops files: read without running anything, and only types that skops itself trusts.

Decision trees and forests are not among them since skops 0.16: scikit-learn follows a file's node indices unchecked, so
that a crafted one ends the process. They are taken as ONNX.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Sequence

import numpy as np
import skops.io
from sklearn.base import is_classifier, is_regressor

from services.evaluator.domain import Floats, Task, class_name
from services.evaluator.errors import ModelIsPickle, ModelRefused, ModelUntrusted
from services.evaluator.models.model import Model, held_to, settled_features

MAX_UNPACKED_BYTES = 1 << 30
"""A zip of a few kB can unpack to terabytes; a scikit-learn model beyond 1 GiB does not belong in one process here."""


def load(data: bytes, features: Sequence[str] | None, task: Task | None) -> Model:
    """The estimator or pipeline in a skops file."""
    _check_archive(data)
    try:
        untrusted = skops.io.get_untrusted_types(data=data)
    except Exception as error:  # the file is a stranger's: whatever its parser raises means the same
        raise ModelRefused(
            f"the skops file cannot be read: {str(error)[:200]}; save it again with skops.io.dump"
        ) from error
    if untrusted:
        listed = ", ".join(untrusted[:5])
        raise ModelUntrusted(f"the skops file holds types that are not trusted: {listed}; submit it as onnx")
    try:
        estimator = skops.io.loads(data, trusted=[])
    except Exception as error:
        raise ModelRefused(
            f"the skops file cannot be loaded: {str(error)[:200]}; save it again with skops.io.dump"
        ) from error
    own: Task
    if is_classifier(estimator) and hasattr(estimator, "predict_proba"):
        own, method, classes = "classification", estimator.predict_proba, estimator.classes_
    elif is_regressor(estimator):
        own, method, classes = "regression", estimator.predict, ()
    else:
        raise ModelRefused(f"{type(estimator).__name__} is no regressor, and no classifier that gives probabilities")
    held_to(task, own)

    def predict(rows: Floats) -> Floats:
        with warnings.catch_warnings():
            # Columns are in the model's order; it warns because they come without their names.
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            return np.asarray(method(rows), dtype=np.float64).reshape(len(rows), -1)

    return Model(
        format="skops",
        task=own,
        features=settled_features(
            [str(name) for name in getattr(estimator, "feature_names_in_", ())],
            features,
            getattr(estimator, "n_features_in_", None),
        ),
        classes=tuple(class_name(label) for label in np.asarray(classes).tolist()),
        predict=predict,
    )


def _check_archive(data: bytes) -> None:
    """A zip with a schema, of bearable size, with no pickle in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError):
        raise ModelRefused("this is not a skops file; save the estimator with skops.io.dump") from None
    if any(member.filename.endswith((".pkl", ".pickle", ".joblib")) for member in members):
        raise ModelIsPickle()
    if "schema.json" not in {member.filename for member in members}:
        raise ModelRefused("this zip has no schema.json, so it is no skops file; save the estimator with skops.io.dump")
    if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
        raise ModelRefused(f"the skops file unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
