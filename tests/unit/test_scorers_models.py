"""Models load from bytes by their format, predict as their own libraries do, and come as nothing that runs code."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import lightgbm as lgb
import numpy as np
import onnx
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from services.evaluator.errors import (
    FeaturesUnknown,
    ModelFormatUnknown,
    ModelIsPickle,
    ModelRefused,
    ModelUntrusted,
    TaskMismatch,
)
from services.evaluator.models import load, skops_file

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(400, 3))
X[:, 2] = RANDOM.integers(0, 6, 400)
TWO = (X[:, 0] + RANDOM.normal(0, 0.5, 400) > 0).astype(int)
THREE = np.digitize(X[:, 0] + RANDOM.normal(0, 0.5, 400), [-0.5, 0.5])
NAMES = ["a", "b", "c"]


def booster(objective: str, labels: np.ndarray, **parameters: object) -> lgb.Booster:
    data = lgb.Dataset(X, labels, feature_name=NAMES, categorical_feature=[2])
    return lgb.train({"objective": objective, "verbose": -1, "num_threads": 1, **parameters}, data, num_boost_round=12)


def text_of(model: lgb.Booster) -> bytes:
    return model.model_to_string().encode()


BINARY = text_of(booster("binary", TWO))


class TestLightGBM:
    def test_two_classes(self) -> None:
        model = load(BINARY, "lightgbm")
        assert (model.task, model.features, model.classes) == ("classification", ("a", "b", "c"), ("0", "1"))
        assert model.predict(X)[:, 1] == pytest.approx(booster("binary", TWO).predict(X))
        assert model.predict(X).sum(axis=1) == pytest.approx(np.ones(400))

    @pytest.mark.parametrize("boosting", ["gbdt", "dart", "rf"])
    def test_many_classes(self, boosting: str) -> None:
        own = booster("multiclass", THREE, num_class=3, boosting=boosting, bagging_freq=1, bagging_fraction=0.7)
        model = load(text_of(own), "lightgbm")
        assert model.classes == ("0", "1", "2")
        assert model.predict(X) == pytest.approx(own.predict(X))

    @pytest.mark.parametrize("objective", ["regression", "poisson", "quantile"])
    def test_regression(self, objective: str) -> None:
        own = booster(objective, np.exp(X[:, 0]))
        model = load(text_of(own), "lightgbm")
        assert (model.task, model.classes) == ("regression", ())
        assert model.predict(X)[:, 0] == pytest.approx(own.predict(X))

    def test_a_model_that_learned_nothing_still_loads(self) -> None:
        model = load(text_of(booster("regression", np.zeros(400))), "lightgbm")
        assert model.predict(X[:2]).tolist() == [[0.0], [0.0]]

    def test_columns_without_names_take_the_given_ones(self) -> None:
        bare = lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lgb.Dataset(X, TWO), 3)
        assert load(text_of(bare), "lightgbm", features=NAMES).features == ("a", "b", "c")
        assert load(text_of(bare), "lightgbm").features == ("Column_0", "Column_1", "Column_2")

    @pytest.mark.parametrize("kept", [0, 4, 60, 900, len(BINARY) // 2, len(BINARY) - 6000])
    def test_a_cut_file_is_refused(self, kept: int) -> None:
        with pytest.raises(ModelRefused):
            load(BINARY[:kept], "lightgbm")

    @pytest.mark.parametrize(
        ("field", "first", "reason"),
        [
            (b"left_child", b"29999", "a child is out of range"),
            (b"left_child", b"0", "a child is out of range"),
            (b"right_child", b"-999", "a child is out of range"),
            (b"split_feature", b"77", "feature beyond the 3"),
            (b"left_child", b"1_1", "is no integer"),
            (b"leaf_value", b"x", "could not convert"),
        ],
    )
    def test_a_tree_that_would_crash_the_library_is_refused(self, field: bytes, first: bytes, reason: str) -> None:
        with pytest.raises(ModelRefused, match=reason):
            load(with_first_number(BINARY, field, first), "lightgbm")

    def test_the_library_alone_would_not_survive_it(self, tmp_path: Path) -> None:
        """Why the check is there; when this fails, LightGBM has learned to refuse and the check may go."""
        file = tmp_path / "model.txt"
        file.write_bytes(BINARY[: len(BINARY) // 2])
        code = f"import lightgbm; lightgbm.Booster(model_file={str(file)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
        assert done.returncode < 0, "ended by a signal"

    def test_objectives_without_a_task_are_refused(self) -> None:
        with pytest.raises(ModelRefused, match="lambdarank"):
            load(BINARY.replace(b"objective=binary", b"objective=lambdarank"), "lightgbm")

    def test_linear_trees_are_refused(self) -> None:
        with pytest.raises(ModelRefused, match="linear tree"):
            load(text_of(booster("regression", X[:, 0], linear_tree=True)), "lightgbm")


class TestSkops:
    def test_a_pipeline_of_two_classes(self) -> None:
        own = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, np.where(TWO, "yes", "no"))
        model = load(skops.io.dumps(own), "skops", features=NAMES)
        assert (model.task, model.classes) == ("classification", ("no", "yes"))
        assert model.predict(X) == pytest.approx(own.predict_proba(X))

    def test_three_classes(self) -> None:
        own = LogisticRegression().fit(X, THREE)
        model = load(skops.io.dumps(own), "skops", features=NAMES)
        assert model.classes == ("0", "1", "2")
        assert model.predict(X) == pytest.approx(own.predict_proba(X))

    def test_a_regression(self) -> None:
        own = LinearRegression().fit(X, X[:, 0])
        model = load(skops.io.dumps(own), "skops", features=NAMES)
        assert model.task == "regression"
        assert model.predict(X)[:, 0] == pytest.approx(own.predict(X))

    def test_features_must_be_named_by_someone(self) -> None:
        own = skops.io.dumps(LinearRegression().fit(X, X[:, 0]))
        with pytest.raises(FeaturesUnknown):
            load(own, "skops")
        with pytest.raises(FeaturesUnknown, match="2 feature names for a model of 3 inputs"):
            load(own, "skops", features=["a", "b"])

    def test_another_task_than_asked_for(self) -> None:
        with pytest.raises(TaskMismatch):
            load(skops.io.dumps(LinearRegression().fit(X, X[:, 0])), "skops", features=NAMES, task="classification")

    def test_trees_are_refused_here_and_taken_as_onnx(self) -> None:
        own = RandomForestClassifier(5, random_state=0).fit(X, THREE)
        with pytest.raises(ModelUntrusted, match="submit it as onnx"):
            load(skops.io.dumps(own), "skops", features=NAMES)
        graph = to_onnx(own, X[:1].astype(np.float32), options={"zipmap": False})
        model = load(graph.SerializeToString(), "onnx", features=NAMES)
        assert model.predict(X) == pytest.approx(own.predict_proba(X.astype(np.float32)), abs=1e-5)

    def test_types_from_elsewhere_are_refused(self) -> None:
        own = make_pipeline(FunctionTransformer(subprocess.list2cmdline), LinearRegression())
        with pytest.raises(ModelUntrusted, match="list2cmdline"):
            load(skops.io.dumps(own), "skops", features=NAMES)

    def test_classifiers_without_probabilities_are_refused(self) -> None:
        with pytest.raises(ModelRefused, match="RidgeClassifier"):
            load(skops.io.dumps(RidgeClassifier().fit(X, TWO)), "skops", features=NAMES)

    def test_zips_that_are_no_skops_file(self) -> None:
        with pytest.raises(ModelRefused, match=r"schema\.json"):
            load(zipped({"model.txt": b"hello"}), "skops", features=NAMES)
        with pytest.raises(ModelIsPickle):
            load(zipped({"archive/data.pkl": pickle.dumps(1)}), "skops", features=NAMES)
        with pytest.raises(ModelRefused):
            load(zipped({"schema.json": b"{}"}), "skops", features=NAMES)

    def test_a_zip_that_unpacks_to_too_much_is_not_unpacked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(skops_file, "MAX_UNPACKED_BYTES", 1 << 20)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("schema.json", bytes(2 << 20))
        with pytest.raises(ModelRefused, match="more than 1 MiB"):
            load(packed.getvalue(), "skops", features=NAMES)


class TestOnnx:
    @pytest.mark.parametrize("zipmap", [True, False])
    def test_classes_with_and_without_zipmap(self, zipmap: bool) -> None:
        own = LogisticRegression().fit(X, TWO)
        graph = to_onnx(own, X[:1].astype(np.float32), options={"zipmap": zipmap})
        model = load(graph.SerializeToString(), "onnx", features=NAMES)
        assert (model.task, model.classes) == ("classification", ("0", "1"))
        assert model.predict(X) == pytest.approx(own.predict_proba(X), abs=1e-5)

    def test_names_of_classes_come_with_zipmap(self) -> None:
        own = LogisticRegression().fit(X, np.where(TWO, "yes", "no"))
        graph = to_onnx(own, X[:1].astype(np.float32))
        model = load(graph.SerializeToString(), "onnx", features=NAMES)
        assert model.classes == ("no", "yes")
        assert model.predict(X) == pytest.approx(own.predict_proba(X), abs=1e-5)

    def test_a_regression(self) -> None:
        own = LinearRegression().fit(X, X[:, 0])
        model = load(to_onnx(own, X[:1].astype(np.float32)).SerializeToString(), "onnx", features=NAMES)
        assert model.task == "regression"
        assert model.predict(X)[:, 0] == pytest.approx(own.predict(X.astype(np.float32)), abs=1e-5)

    def test_an_input_a_feature_names_its_features(self) -> None:
        inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 1]) for name in ("a", "b")]
        output = onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, [None, 1])
        node = onnx.helper.make_node("Add", ["a", "b"], ["sum"])
        graph = onnx_bytes(onnx.helper.make_graph([node], "g", inputs, [output]))
        model = load(graph, "onnx")
        assert model.features == ("a", "b")
        assert model.predict(X[:, :2])[:, 0] == pytest.approx(X[:, 0] + X[:, 1], abs=1e-5)

    def test_text_inputs_are_refused(self) -> None:
        tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.STRING, [None, 1]) for name in "xy"]
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        with pytest.raises(ModelRefused, match="only numeric inputs"):
            load(onnx_bytes(onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])), "onnx", features=["x"])

    @pytest.mark.parametrize("place", ["weights", "../here/weights"])
    @pytest.mark.parametrize("size", [1, 64], ids=["small", "large"])  # ONNX Runtime treats them differently
    def test_weights_in_a_file_beside_it_are_not_read(
        self, place: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        (tmp_path / "here" / "weights").write_bytes(np.full(size, 42, dtype=np.float32).tobytes())
        weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[size])
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=place)
        ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, size]) for name in "xy"]
        node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
        graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
        with pytest.raises(ModelRefused, match=r"[Ee]xternal|initializer"):
            load(onnx_bytes(graph), "onnx", features=[f"x{column}" for column in range(size)])

    def test_bytes_that_are_no_graph(self) -> None:
        with pytest.raises(ModelRefused):
            load(b"\x08\x07nothing", "onnx", features=NAMES)


@pytest.mark.parametrize("format", ["lightgbm", "skops", "onnx", "pickle"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_refused_whatever_it_calls_itself(format: str, protocol: int, tmp_path: Path) -> None:
    with pytest.raises(ModelIsPickle):
        load(pickle.dumps(Trap(tmp_path / "ran"), protocol), format, features=NAMES)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("format", ["lightgbm", "skops", "onnx"])
def test_an_old_pickle_is_refused_too(format: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused):
        load(pickle.dumps(Trap(tmp_path / "ran"), 0), format, features=NAMES)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ModelFormatUnknown, match="lightgbm, skops, onnx"):
        load(BINARY, "joblib")


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def with_first_number(model: bytes, field: bytes, number: bytes) -> bytes:
    """The model with the first number of the first tree's `field` replaced, and its size in the header put right."""
    start = model.index(b"\n" + field + b"=", model.index(b"Tree=0\n")) + len(field) + 2
    end = min(model.index(b" ", start), model.index(b"\n", start))
    edited = model[:start] + number + model[end:]
    sizes_at = edited.index(b"tree_sizes=") + len(b"tree_sizes=")
    first_size = edited[sizes_at : edited.index(b" ", sizes_at)]
    grown = int(first_size) + len(number) - (end - start)
    return edited[:sizes_at] + b"%d" % grown + edited[sizes_at + len(first_size) :]


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def onnx_bytes(graph: onnx.GraphProto) -> bytes:
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data
