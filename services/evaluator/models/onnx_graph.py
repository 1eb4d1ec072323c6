"""ONNX graphs of tabular models, run by ONNX Runtime on one CPU thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnxruntime import InferenceSession, SessionOptions

from services.evaluator.domain import Floats, Task, class_name
from services.evaluator.errors import ModelRefused, TaskMismatch
from services.evaluator.models.model import Model, settled_features

NUMERIC = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
FLOATING = ("tensor(float)", "tensor(double)")
MAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")


def load(data: bytes, features: Sequence[str] | None, task: Task | None) -> Model:
    """The graph's session. It takes one [n, f] tensor, or one [n, 1] tensor a feature whose name it has.

    The output that counts: ZipMap's sequence of maps, else the last floating tensor. A graph does not say its task: a
    tensor of two or more columns is probabilities, one column a regression, unless `task` says that it is P(class 1).
    """
    session = _session(data)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for tensor in inputs:
        if tensor.type not in NUMERIC:
            raise ModelRefused(
                f"the ONNX input {tensor.name!r} takes {tensor.type}; only numeric inputs are served here"
            )
    candidates = [out for out in outputs if out.type in MAPS] or [out for out in outputs if out.type in FLOATING]
    if not candidates:
        raise ModelRefused("the ONNX graph has no floating output; export it with its probabilities")
    output = candidates[-1]
    joint = len(inputs) == 1
    width = inputs[0].shape[1] if joint and len(inputs[0].shape) == 2 else len(inputs)
    names = settled_features(
        None if joint and width != 1 else [tensor.name for tensor in inputs],
        features,
        width if isinstance(width, int) else None,
    )

    def run(rows: Floats) -> Any:
        if joint:
            feed: dict[str, Any] = {inputs[0].name: rows.astype(NUMERIC[inputs[0].type])}
        else:
            feed = {tensor.name: rows[:, [column]].astype(NUMERIC[tensor.type]) for column, tensor in enumerate(inputs)}
        return session.run([output.name], feed)[0]

    # One row of zeros shows what the declared shapes leave open: the classes of a ZipMap, the columns of a tensor.
    try:
        probe = run(np.zeros((1, len(names))))
    except Exception as error:  # ONNX Runtime raises a class a status, with no common base of its own
        raise ModelRefused(f"the ONNX graph does not run on one row: {str(error)[:200]}") from error
    return _model(names, run, probe, task)


def _session(data: bytes) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised; nothing is printed besides
    # A graph may keep weights in files beside it, and ONNX Runtime would read them from the working directory, where no
    # digest covers them. Nothing can lie under /dev/null, so it finds none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelRefused(f"this is no ONNX graph that can be run: {str(error)[:200]}") from error


def _model(names: tuple[str, ...], run: Any, probe: Any, task: Task | None) -> Model:
    if isinstance(probe, list):
        keys = list(probe[0])

        def from_maps(rows: Floats) -> Floats:
            return np.array([[row[key] for key in keys] for row in run(rows)], dtype=np.float64)

        if task == "regression":
            raise TaskMismatch(
                "the ONNX graph gives a map of classes, so it is no regression; submit it with its true task"
            )
        return Model("onnx", "classification", names, tuple(class_name(key) for key in keys), from_maps)

    def from_tensor(rows: Floats) -> Floats:
        return np.asarray(run(rows), dtype=np.float64).reshape(len(rows), -1)

    def from_score(rows: Floats) -> Floats:
        score = from_tensor(rows)[:, 0]
        return np.column_stack([1.0 - score, score])

    columns = int(np.asarray(probe).size)
    if columns > 1:
        if task == "regression":
            raise TaskMismatch(f"the ONNX graph gives {columns} columns, a regression gives one; submit its true task")
        return Model("onnx", "classification", names, tuple(str(index) for index in range(columns)), from_tensor)
    if task == "classification":
        return Model("onnx", "classification", names, ("0", "1"), from_score)
    return Model("onnx", "regression", names, (), from_tensor)
