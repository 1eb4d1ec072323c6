"""ONNX models by onnxruntime on the CPU; SHAP values by enumeration where the features are few."""

from typing import Any, Final

import numpy as np
from onnxruntime import InferenceSession, SessionOptions

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
from services.deployer.model_server.models.shapley import MAX_FEATURES, Enumeration

DTYPES: Final = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


class _Onnx:
    def __init__(self, manifest: Manifest, session: Any) -> None:
        self._session = session
        self._names = [feature.name for feature in manifest.features]
        self._inputs = [(i.name, DTYPES[i.type]) for i in session.get_inputs()]
        self._binary = manifest.task == "binary"
        self._classifies = manifest.task != "regression"
        self._classes = len(manifest.labels)
        self._output = _score_output(session, self._classifies)
        self._enumeration: Enumeration | None = None
        features = len(manifest.features)
        self.explainer: Explainer | str
        if manifest.background is None:
            self.explainer = "the bundle has no background row for SHAP values to compare with; build it with one"
        elif features > MAX_FEATURES:
            self.explainer = (
                f"exact SHAP values of an ONNX model need at most {MAX_FEATURES} features; it has {features}"
            )
        else:
            self._enumeration = Enumeration(np.array(manifest.background, dtype=np.float64))
            self.explainer = Explainer("exact enumeration", "probability" if self._classifies else "value")

    def _score(self, rows: Floats) -> Floats:
        if len(self._inputs) == 1:
            name, dtype = self._inputs[0]
            feed = {name: _cast(rows, dtype)}
        else:
            feed = {n: _cast(rows[:, [self._names.index(n)]], dtype) for n, dtype in self._inputs}
        try:
            score = np.asarray(self._session.run([self._output], feed)[0], dtype=np.float64)
        except Exception as error:  # onnxruntime's own exception classes derive from Exception directly
            raise InputRefused(f"onnxruntime: {str(error).splitlines()[0]}") from error
        score = score.reshape(len(rows), -1)
        if not self._classifies:
            return score[:, 0]
        if self._binary:
            return score[:, -1]  # [n, 1]: the positive class alone; [n, 2]: both
        return score

    def predict(self, rows: Floats) -> Scores:
        score = self._score(rows)
        return Scores(score, labels_of(score) if self._classifies else None)

    def explain(self, rows: Floats) -> Explanation:
        assert self._enumeration is not None, "no explainer without an enumeration"
        return self._enumeration.explain(rows, self._score)


def load(manifest: Manifest, data: bytes) -> Model:
    """Raises ModelRefused when onnxruntime cannot run it, or inputs and outputs are of another form."""
    options = SessionOptions()
    # No thread pool a model: a thousand models would be thousands of threads, and small rows gain nothing by them.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Tensors kept in other files are looked for in a folder that does not exist: the model is what was signed, alone.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/nonexistent")
    try:
        session = InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception classes derive from Exception directly
        raise ModelRefused(f"onnxruntime cannot load this model: {str(error).splitlines()[0]}") from error
    names = [feature.name for feature in manifest.features]
    inputs = session.get_inputs()
    if odd := [f"{i.name} {i.type}" for i in inputs if i.type not in DTYPES]:
        raise ModelRefused(f"inputs must be tensors of float, double or int64; this model has {', '.join(odd[:8])}")
    if len(inputs) > 1 and sorted(i.name for i in inputs) != sorted(names):
        raise ModelRefused(
            "the model needs one input of all features, or one input a feature, named as in the manifest"
        )
    return _Onnx(manifest, session)


def _score_output(session: Any, classifies: bool) -> str:
    """Of a classifier's outputs the one with floats; skl2onnx puts the label first."""
    outputs = [o for o in session.get_outputs() if o.type in ("tensor(float)", "tensor(double)")]
    if len(outputs) != 1:
        kind = "probabilities as one tensor (skl2onnx: options={'zipmap': False})" if classifies else "one tensor"
        raise ModelRefused(f"the model must output {kind}; it outputs {[o.type for o in session.get_outputs()]}")
    return str(outputs[0].name)


def _cast(rows: Floats, dtype: Any) -> Any:
    if dtype is np.float64:
        return rows
    with np.errstate(all="ignore"):
        cast = rows.astype(dtype)
    if dtype is np.int64:
        if not np.array_equal(cast, rows):
            raise InputRefused("the model takes whole numbers only")
    elif not np.array_equal(np.isfinite(cast), np.isfinite(rows)):
        raise InputRefused("a value is too large for the model's 32-bit floats")
    return cast
