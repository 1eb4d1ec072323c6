"""The model server, a process: serves signed bundles only, explains exactly, refuses with a sentence and remembers."""

import concurrent.futures
import json
import socket
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx
import lightgbm
import numpy as np
import pytest
import skops.io
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR, LinearSVC

from services.deployer.bundle import Bundle, Feature, build
from services.deployer.model_server.tensors import WHOLE
from services.deployer.model_server.testing import KEY, ModelServer, breast_cancer, lightgbm_bundle, manifest

OTHER = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with ModelServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def tumour(server: ModelServer) -> lightgbm.Booster:
    bundle, booster = lightgbm_bundle(server.folder / "tumour")
    assert server.load(bundle).status_code == 200
    return booster


def columns(rows: Any, names: list[str]) -> list[dict[str, Any]]:
    """One tensor a feature; NaN travels as null."""
    rows = np.asarray(rows, dtype=float)
    return [
        {
            "name": n,
            "shape": [len(rows)],
            "datatype": "FP64",
            "data": [None if v != v else v for v in rows[:, i].tolist()],
        }
        for i, n in enumerate(names)
    ]


def matrix(rows: Any) -> list[dict[str, Any]]:
    rows = np.asarray(rows, dtype=float)
    return [{"name": "input", "shape": list(rows.shape), "datatype": "FP64", "data": rows.tolist()}]


def infer(server: ModelServer, model: str, inputs: Any, **more: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": inputs, **more}, timeout=30)


def outputs(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found = {}
    for tensor in response.json()["outputs"]:
        array = np.array(tensor["data"]).reshape(tensor["shape"])
        found[tensor["name"]] = array
    return found


def assert_adds_up(found: dict[str, Any]) -> None:
    np.testing.assert_allclose(found["shap_base"] + found["shap_values"].sum(axis=-1), found["raw_score"], atol=1e-9)


def skops_bundle(folder: Path, name: str, model: Any, names: list[str], **fields: Any) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.skops"
    skops.io.dump(model, path)
    described = manifest(
        name, format="skops", model_file=path.name, **{"features": [Feature(name=n) for n in names]} | fields
    )
    return build(folder, described, {path.name: path}, KEY)


def shapley_by_definition(row: Any, reference: Any, score: Any) -> Any:
    """The mean over all orders of what each feature adds: slow, and as the book says."""
    features = len(row)
    total = np.zeros(features)
    orders = list(permutations(range(features)))
    for order in orders:
        mixed = np.array(reference, dtype=float)
        before = score(mixed)
        for i in order:
            mixed[i] = row[i]
            after = score(mixed)
            total[i] += after - before
            before = after
    return total / len(orders)


# Serving and explaining


def test_a_lightgbm_classifier_gives_what_lightgbm_gives(server: ModelServer, tumour: lightgbm.Booster) -> None:
    rows, _, names = breast_cancer()
    rows = rows[:50].copy()
    rows[3, 2] = np.nan
    found = outputs(infer(server, "tumour", columns(rows, names)))
    np.testing.assert_allclose(found["probability"], tumour.predict(rows))
    assert found["label"].tolist() == ["benign" if p > 0.5 else "malignant" for p in tumour.predict(rows)]
    np.testing.assert_allclose(found["raw_score"], tumour.predict(rows, raw_score=True))
    contributions = tumour.predict(rows, pred_contrib=True)
    np.testing.assert_allclose(found["shap_values"], contributions[:, :-1], atol=1e-12)
    np.testing.assert_allclose(1 / (1 + np.exp(-found["raw_score"])), found["probability"])  # it is the log-odds
    assert_adds_up(found)


def test_every_form_of_input_gives_the_same(server: ModelServer, tumour: lightgbm.Booster) -> None:
    rows, _, names = breast_cancer()
    flat = [{**matrix(rows[:3])[0], "data": rows[:3].ravel().tolist()}]
    standing = [{**c, "shape": [3, 1], "data": [[v] for v in c["data"]]} for c in columns(rows[:3], names)]
    shuffled = list(reversed(columns(rows[:3], names)))
    expected = infer(server, "tumour", columns(rows[:3], names)).json()
    for inputs in (matrix(rows[:3]), flat, standing, shuffled):
        assert infer(server, "tumour", inputs).json() == expected


def test_the_answer_says_which_model_answered_whom(server: ModelServer, tumour: lightgbm.Booster) -> None:
    rows, _, _ = breast_cancer()
    answer = infer(server, "tumour/versions/1", matrix(rows[:1]), id="request-7").json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tumour", "1", "request-7")
    assert answer["parameters"]["shap_space"] == "log-odds"
    assert answer["parameters"]["bundle"].startswith("sha256:")


def test_explaining_can_be_left_out(server: ModelServer, tumour: lightgbm.Booster) -> None:
    rows, _, _ = breast_cancer()
    plain = infer(server, "tumour", matrix(rows[:1]), parameters={"explain": False})
    assert outputs(plain).keys() == {"probability", "label"}
    assert "shap_unavailable" not in plain.json()["parameters"]
    chosen = infer(server, "tumour", matrix(rows[:1]), outputs=[{"name": "probability"}, {"name": "shap_base"}])
    assert outputs(chosen).keys() == {"probability", "shap_base"}


def test_metadata_follow_the_protocol(server: ModelServer, tumour: lightgbm.Booster) -> None:
    found = httpx.get(f"{server.url}/v2/models/tumour").json()
    assert found["platform"] == "mintmark_lightgbm" and found["versions"] == ["1"]
    assert found["inputs"][0] == {
        "name": "mean_radius", "datatype": "FP64", "shape": [-1], "parameters": {"nullable": True}
    }  # fmt: skip
    assert {o["name"]: o["shape"] for o in found["outputs"]} == {
        "probability": [-1], "label": [-1], "raw_score": [-1], "shap_base": [-1], "shap_values": [-1, 16]
    }  # fmt: skip
    assert httpx.get(f"{server.url}/v2/models/tumour/versions/1/ready").status_code == 200
    assert httpx.get(f"{server.url}/v2/health/live").json() == {"live": True}
    assert "model_repository" in httpx.get(f"{server.url}/v2").json()["extensions"]


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any, list[str]]:
    data = load_iris()
    return data.data, data.target, ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def test_a_multiclass_lightgbm_model(server: ModelServer, tmp_path: Path, iris: tuple[Any, Any, list[str]]) -> None:
    rows, target, names = iris
    parameters = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target, feature_name=names), 10)
    booster.save_model(tmp_path / "m.txt")
    described = manifest(
        "iris", format="lightgbm", model_file="m.txt", task="multiclass", labels=(10, 20, 30),
        features=[Feature(name=n) for n in names],
    )  # fmt: skip
    assert server.load(build(tmp_path, described, {"m.txt": tmp_path / "m.txt"}, KEY)).status_code == 200
    found = outputs(infer(server, "iris", matrix(rows)))
    np.testing.assert_allclose(found["probability"], booster.predict(rows))
    assert found["label"].tolist() == [(10, 20, 30)[i] for i in booster.predict(rows).argmax(axis=1)]
    assert found["shap_values"].shape == (150, 3, 4)
    assert_adds_up(found)


def test_a_logistic_regression_is_explained_in_closed_form(server: ModelServer, tmp_path: Path) -> None:
    rows, target, names = breast_cancer(30)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows, target)
    reference = tuple(rows.mean(axis=0))
    bundle = skops_bundle(tmp_path, "logistic", model, names, task="binary", labels=(0, 1), background=reference)
    assert server.load(bundle).status_code == 200
    rows = rows[:20]
    answer = infer(server, "logistic", columns(rows, names))
    found = outputs(answer)
    assert answer.json()["parameters"]["shap_method"] == "linear, closed form"
    np.testing.assert_allclose(found["probability"], model.predict_proba(rows)[:, 1])
    np.testing.assert_allclose(found["raw_score"], model.decision_function(rows))
    assert found["label"].tolist() == model.predict(rows).tolist()
    assert_adds_up(found)


def test_closed_form_and_enumeration_are_the_shapley_values_of_the_book(
    server: ModelServer, tmp_path: Path, iris: tuple[Any, Any, list[str]]
) -> None:
    rows, target, names = iris
    two = target < 2
    reference = rows.mean(axis=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[two], target[two])
    curved = QuadraticDiscriminantAnalysis(reg_param=0.5).fit(rows[two], target[two])
    scores = {
        "line": (linear, lambda x: linear.decision_function([x])[0]),
        "curved": (curved, lambda x: curved.predict_proba([x])[0, 1]),
    }
    for name, (model, score) in scores.items():
        bundle = skops_bundle(
            tmp_path, name, model, names, task="binary", labels=("a", "b"), background=tuple(reference)
        )
        assert server.load(bundle).status_code == 200
        found = outputs(infer(server, name, matrix(rows[:5])))
        for i, row in enumerate(rows[:5]):
            np.testing.assert_allclose(found["shap_values"][i], shapley_by_definition(row, reference, score), atol=1e-9)
        np.testing.assert_allclose(found["shap_base"], score(reference))
        assert_adds_up(found)


def test_regression_gives_values(server: ModelServer, tmp_path: Path) -> None:
    rows, target = load_diabetes(return_X_y=True)
    names = [f"f{i}" for i in range(10)]
    models = {"linear": LinearRegression(), "kernel": SVR(C=100)}
    for name, model in models.items():
        model.fit(rows, target)
        bundle = skops_bundle(tmp_path, name, model, names, task="regression", background=tuple(rows.mean(axis=0)))
        assert server.load(bundle).status_code == 200
        found = outputs(infer(server, name, matrix(rows[:70])))  # 70 rows of 1,024 coalitions: more than one chunk
        np.testing.assert_allclose(found["value"], model.predict(rows[:70]))
        np.testing.assert_allclose(found["raw_score"], found["value"])
        assert "label" not in found
        assert_adds_up(found)


@pytest.mark.parametrize("features", [4, 16])
def test_what_cannot_be_explained_exactly_says_so(server: ModelServer, tmp_path: Path, features: int) -> None:
    rows, target, names = breast_cancer(features)
    curved = GaussianNB().fit(rows, target)
    background = None if features == 4 else tuple(rows.mean(axis=0))
    name = f"unexplained-{features}"
    bundle = skops_bundle(tmp_path, name, curved, names, task="binary", labels=(0, 1), background=background)
    assert server.load(bundle).status_code == 200
    answer = infer(server, name, matrix(rows[:2]))
    assert outputs(answer).keys() == {"probability", "label"}
    reason = "no background row" if features == 4 else "at most 10 features; it has 16"
    assert reason in answer.json()["parameters"]["shap_unavailable"]
    asked = infer(server, name, matrix(rows[:2]), outputs=[{"name": "shap_values"}])
    assert asked.status_code == 400 and reason in asked.json()["error"]


def test_shap_values_that_do_not_add_up_are_never_given_out(server: ModelServer, tmp_path: Path) -> None:
    """LightGBM's linear trees have no TreeSHAP: whatever pred_contrib says of them is found out at load."""
    rows, target, names = breast_cancer(6)
    parameters = {"objective": "binary", "linear_tree": True, "verbosity": -1, "num_threads": 1}
    lightgbm.train(parameters, lightgbm.Dataset(rows, target, feature_name=names), 5).save_model(tmp_path / "m.txt")
    described = manifest(
        "crooked", format="lightgbm", model_file="m.txt", task="binary", labels=(0, 1),
        features=[Feature(name=n) for n in names], background=tuple(rows.mean(axis=0)),
    )  # fmt: skip
    loaded = server.load(build(tmp_path, described, {"m.txt": tmp_path / "m.txt"}, KEY))
    assert loaded.status_code == 200, loaded.text
    answer = infer(server, "crooked", matrix(rows[:2]))
    assert outputs(answer).keys() == {"probability", "label"}
    assert answer.json()["parameters"]["shap_unavailable"]


@pytest.mark.parametrize("one_input", [True, False])
def test_an_onnx_classifier(
    server: ModelServer, tmp_path: Path, iris: tuple[Any, Any, list[str]], one_input: bool
) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    rows, target, names = iris
    two = target < 2
    name = f"onnx-{one_input}"
    if one_input:
        model = RandomForestClassifier(n_estimators=5, random_state=0).fit(rows[two], target[two])
        types = [("X", FloatTensorType([None, 4]))]
        expected = model.predict_proba(rows[two].astype(np.float32))[:, 1]
    else:
        pd_like = ColumnTransformer([(n, StandardScaler(), [i]) for i, n in enumerate(names)])
        model = make_pipeline(pd_like, LogisticRegression()).fit(rows[two], target[two])
        types = [(n, FloatTensorType([None, 1])) for n in names]
        expected = model.predict_proba(rows[two])[:, 1]
    graph = to_onnx(model, initial_types=types, options={"zipmap": False}, target_opset=17)
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    described = manifest(
        name, format="onnx", model_file="m.onnx", task="binary", labels=("setosa", "versicolor"),
        features=[Feature(name=n, datatype="FP32") for n in names], background=tuple(rows.mean(axis=0)),
    )  # fmt: skip
    loaded = server.load(build(tmp_path, described, {"m.onnx": tmp_path / "m.onnx"}, KEY))
    assert loaded.status_code == 200, loaded.text
    answer = infer(server, name, columns(rows[two], names))
    found = outputs(answer)
    np.testing.assert_allclose(found["probability"], expected, atol=1e-5)
    np.testing.assert_allclose(found["raw_score"], found["probability"], atol=1e-6)
    np.testing.assert_allclose(found["shap_base"] + found["shap_values"].sum(axis=1), found["raw_score"], atol=1e-6)
    assert answer.json()["parameters"]["shap_space"] == "probability"


# Refusing to load


def test_a_bundle_of_another_signer_is_neither_stored_nor_loaded(server: ModelServer, tmp_path: Path) -> None:
    bundle, _ = lightgbm_bundle(tmp_path, "foreign")
    signed = build(tmp_path / "other", bundle.manifest, {"model.txt": tmp_path / "model.txt"}, OTHER)
    refused = server.load(signed)
    assert refused.status_code == 403 and "does not fit" in refused.json()["error"]
    # put behind its back, as somebody with the disk could
    (server.repository / "bundles" / signed.path.name).write_bytes(signed.path.read_bytes())
    direct = httpx.post(
        f"{server.url}/v2/repository/models/foreign/load", json={"parameters": {"bundle": signed.digest}}
    )
    assert direct.status_code == 403
    assert infer(server, "foreign", []).status_code == 404


def test_a_bundle_changed_on_disk_is_not_loaded(server: ModelServer, tmp_path: Path) -> None:
    bundle, _ = lightgbm_bundle(tmp_path, "flipped")
    raw = bytearray(bundle.path.read_bytes())
    raw[-3000] ^= 1
    (server.repository / "bundles" / bundle.path.name).write_bytes(raw)
    body = {"parameters": {"bundle": bundle.digest}}
    refused = httpx.post(f"{server.url}/v2/repository/models/flipped/load", json=body)
    assert refused.status_code == 422 and "checksum" in refused.json()["error"]
    uploaded = httpx.put(f"{server.url}/v2/repository/bundles/{bundle.digest}", content=bytes(raw))
    assert uploaded.status_code == 422 and "digest" in uploaded.json()["error"]


def test_a_bundle_is_served_under_its_signed_name_only(server: ModelServer, tmp_path: Path) -> None:
    bundle, _ = lightgbm_bundle(tmp_path, "mine")
    server.load(bundle)
    refused = httpx.post(
        f"{server.url}/v2/repository/models/yours/load", json={"parameters": {"bundle": bundle.digest}}
    )
    assert refused.status_code == 422 and "signed to be served as 'mine'" in refused.json()["error"]


def test_one_version_is_never_two_bundles(server: ModelServer, tmp_path: Path) -> None:
    first, _ = lightgbm_bundle(tmp_path / "1", "twice")
    second, _ = lightgbm_bundle(tmp_path / "2", "twice", rounds=3)
    assert [server.load(first).status_code, server.load(first).status_code] == [200, 200]
    assert server.load(second).status_code == 409
    assert httpx.post(f"{server.url}/v2/repository/models/twice/unload").status_code == 200
    assert server.load(second).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"{", b'{"parameters": 3}', b'{"parameters": {"bundle": 3}}',
     b'{"parameters": {"bundle": "../../etc/passwd"}}', b'{"parameters": {"bundle": "sha256:../../x"}}'],
)  # fmt: skip
def test_a_load_that_names_no_bundle_is_refused(server: ModelServer, body: bytes) -> None:
    assert httpx.post(f"{server.url}/v2/repository/models/x/load", content=body).status_code == 400


def test_a_load_of_a_bundle_that_never_came_says_how_to_bring_it(server: ModelServer) -> None:
    digest = "sha256:" + "f" * 64
    answer = httpx.post(f"{server.url}/v2/repository/models/x/load", json={"parameters": {"bundle": digest}})
    assert answer.status_code == 404 and "PUT it to" in answer.json()["error"]


def double(values: Any) -> Any:
    return values * 2


def refused_models(folder: Path) -> Iterator[tuple[str, Bundle, str]]:
    """(name, bundle, what the refusal must say): files that are signed, and yet no models to serve."""
    rows, target, names = breast_cancer(4)
    binary: dict[str, Any] = {"task": "binary", "labels": ("m", "b")}
    features = [Feature(name=n) for n in names]

    def raw(name: str, kind: str, content: bytes, **fields: Any) -> Bundle:
        path = folder / f"{name}.bin"
        path.write_bytes(content)
        described = manifest(name, format=kind, model_file=path.name, **{"features": features, **binary, **fields})
        return build(folder, described, {path.name: path}, KEY)

    own_type = make_pipeline(FunctionTransformer(double), LogisticRegression()).fit(rows, target)
    yield "untrusted", skops_bundle(folder, "untrusted", own_type, names, **binary), "does not trust"
    forest = RandomForestClassifier(n_estimators=2).fit(rows, target)
    yield "forest", skops_bundle(folder, "forest", forest, names, **binary), "ship it as onnx"
    svc = LinearSVC().fit(rows, target)
    yield "no-proba", skops_bundle(folder, "no-proba", svc, names, **binary), "has no predict_proba"
    logistic = LogisticRegression(max_iter=500).fit(rows, target)
    three = {"task": "multiclass", "labels": ("a", "b", "c")}
    yield "classes", skops_bundle(folder, "classes", logistic, names, **three), "classes"
    yield "width", skops_bundle(folder, "width", logistic, names[:3], **binary), "takes 4 features"
    nullable = [Feature(name=n, nullable=True) for n in names]
    nan = skops_bundle(folder, "nan", logistic, names, **binary | {"features": nullable})
    yield "nan", nan, "fails on rows that its manifest allows"
    yield "pickle", raw("pickle", "skops", b"\x80\x04K\x01."), "not a skops file"
    yield "not-lightgbm", raw("not-lightgbm", "lightgbm", b"hello"), "not a LightGBM"
    yield "not-utf8", raw("not-utf8", "lightgbm", b"\xff\xfe"), "not a LightGBM"
    yield "not-onnx", raw("not-onnx", "onnx", b"hello"), "onnxruntime cannot load"
    booster = lightgbm.train(
        {"objective": "regression", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(rows, target * 100.0, feature_name=names), 3,
    )  # fmt: skip
    text = booster.model_to_string().encode()
    yield "no-probability", raw("no-probability", "lightgbm", text), "not probabilities"
    other = [Feature(name=n) for n in reversed(names)]
    yield "other-names", raw("other-names", "lightgbm", text, features=other), "the manifest declares"


def test_what_cannot_be_served_is_refused_with_its_reason(server: ModelServer, tmp_path: Path) -> None:
    for name, bundle, reason in refused_models(tmp_path):
        answer = server.load(bundle)
        assert answer.status_code == 422 and reason in answer.json()["error"], (name, answer.text)
        assert httpx.get(f"{server.url}/v2/models/{name}/ready").status_code == 404


# Refusing to infer


def spoiled(**fields: Any) -> list[dict[str, Any]]:
    return [{**matrix(np.ones((2, 16)))[0], **fields}]


ROW = [1.0] * 16
BAD_BODIES: list[tuple[Any, str]] = [
    ({}, "send `inputs`"),
    ({"inputs": []}, "send `inputs`"),
    ({"inputs": {}}, "send `inputs`"),
    ({"inputs": [3]}, "each input"),
    ({"inputs": [{"name": 3}]}, "each input"),
    ({"inputs": [{"name": "colour"}]}, "no feature 'colour'"),
    ({"inputs": [{"name": "mean_radius", "shape": [1], "datatype": "FP64", "data": [1]}]}, "is missing"),
    ({"inputs": spoiled() * 2}, "sent twice"),
    ({"inputs": spoiled(shape=[2, 15])}, "must have the shape"),
    ({"inputs": spoiled(shape=[32])}, "must have the shape"),
    ({"inputs": spoiled(shape="2,16")}, "positive whole numbers"),
    ({"inputs": spoiled(shape=[-2, 16])}, "positive whole numbers"),
    ({"inputs": spoiled(shape=[0, 16], data=[])}, "positive whole numbers"),
    ({"inputs": spoiled(shape=[True, 16])}, "positive whole numbers"),
    ({"inputs": spoiled(shape=[2**30, 16])}, "values, its data has"),
    ({"inputs": spoiled(shape=[3, 16])}, "says 48 values, its data has 32"),
    ({"inputs": spoiled(data=[ROW, ROW[:15]])}, "rows of 16 values"),
    ({"inputs": spoiled(data=[ROW, 1])}, "rows of 16 values"),
    ({"inputs": spoiled(data=[[ROW], [ROW]])}, "rows of 16 values"),
    ({"inputs": spoiled(data=None)}, "no list of"),
    ({"inputs": spoiled(data=["1"] * 32)}, "must be numbers"),
    ({"inputs": spoiled(data=[True] * 32)}, "must be numbers"),
    ({"inputs": spoiled(data=[{}] * 32)}, "must be numbers"),
    ({"inputs": spoiled(datatype="BYTES")}, "must be one of"),
    ({"inputs": spoiled(datatype=["FP64"])}, "must be one of"),
    ({"inputs": spoiled(datatype="INT64", data=[0.5] * 32)}, "has a fraction"),
    ({"inputs": spoiled(datatype="FP32", data=[1e300] * 32)}, "does not fit FP32"),
    ({"inputs": spoiled(datatype="FP16", data=[70_000] * 32)}, "does not fit FP16"),
    ({"inputs": spoiled(datatype="UINT8", data=[256] * 32)}, "does not fit UINT8, which is 0 to 255"),
    ({"inputs": spoiled(datatype="INT32", data=[-(2**31) - 1] * 32)}, "does not fit INT32"),
    ({"inputs": spoiled(datatype="INT16", data=[0.5] * 32)}, "has a fraction although its datatype is INT16"),
    ({"inputs": spoiled(datatype="UINT64", data=[2**53 + 1] * 32)}, "beyond 2^53"),
    ({"inputs": spoiled(datatype="BOOL", data=[1] * 32)}, "true or false"),
    ({"inputs": spoiled(), "id": 3}, "id of a request"),
    ({"inputs": spoiled(), "parameters": []}, "parameters must be"),
    ({"inputs": spoiled(), "parameters": {"explain": "yes"}}, "true or false"),
    ({"inputs": spoiled(), "outputs": [{"name": "feelings"}]}, "no output 'feelings'"),
    ({"inputs": spoiled(), "outputs": ["label"]}, "outputs must be"),
    ([], "must be a JSON object"),
    ("x", "must be a JSON object"),
]


@pytest.mark.parametrize(("body", "reason"), BAD_BODIES)
def test_a_bad_request_is_refused_with_a_sentence(
    server: ModelServer, tumour: lightgbm.Booster, body: Any, reason: str
) -> None:
    answer = httpx.post(f"{server.url}/v2/models/tumour/infer", json=body)
    assert answer.status_code == 400 and reason in answer.json()["error"], answer.text


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b'{"inputs": NaN}', b'{"inputs": [1e999]}', b"[" * 100_000, b"nul", b"\0"]
)
def test_what_is_not_json_is_refused(server: ModelServer, tumour: lightgbm.Booster, content: bytes) -> None:
    answer = httpx.post(f"{server.url}/v2/models/tumour/infer", content=content, headers=JSON)
    assert answer.status_code == 400 and "not JSON" in answer.json()["error"]


def test_values_outside_the_signature_are_refused(server: ModelServer, tmp_path: Path) -> None:
    rows, target, _ = breast_cancer(2)
    model = LogisticRegression().fit(rows, target)
    described = [Feature(name="a"), Feature(name="b", datatype="INT64")]
    server.load(
        skops_bundle(tmp_path, "strict", model, [], task="binary", labels=("m", "b"), features=described)
    )  # fmt: skip
    for data, reason in (([None, 1.0], "must not be missing"), ([1.0, 1.5], "whole numbers only")):
        answer = infer(server, "strict", [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": data}])
        assert answer.status_code == 400 and reason in answer.json()["error"], answer.text
    assert infer(server, "strict", matrix([[1.0, 2.0]])).status_code == 200
    assert infer(server, "strict", matrix([[1.7e308, 2.0]])).status_code in (200, 400)


def test_what_widens_without_loss_is_taken_for_any_feature(server: ModelServer, tmp_path: Path) -> None:
    rows, target, _ = breast_cancer(2)
    described = [Feature(name="a"), Feature(name="b", datatype="INT64")]
    model = LogisticRegression().fit(rows, target)
    loaded = server.load(
        skops_bundle(tmp_path, "wide", model, [], task="binary", labels=("m", "b"), features=described)
    )
    assert loaded.status_code == 200, loaded.text

    def score(of_a: tuple[str, Any], of_b: tuple[str, Any]) -> float:
        sent = [
            {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
            for name, (datatype, value) in zip("ab", (of_a, of_b), strict=True)
        ]
        answer = infer(server, "wide", sent)
        assert answer.status_code == 200, answer.text
        return float(answer.json()["outputs"][0]["data"][0])

    plain = score(("FP64", 7), ("FP64", 1))
    assert {score((datatype, 7), (datatype, 1)) for datatype in WHOLE} == {plain}
    assert score(("FP16", 7.0), ("BOOL", True)) == plain
    for datatype, held in WHOLE.items():
        most = min(held[-1], 2**53) if datatype != "INT64" else 2**53
        assert score((datatype, most), ("INT8", -1)) == score(("FP64", most), ("FP64", -1)), datatype


def test_paths_and_methods_that_are_not_there(server: ModelServer, tumour: lightgbm.Booster) -> None:
    for method, path, status in [
        ("GET", "/", 404), ("GET", "/v2/nothing", 404), ("GET", "/v2/models/none", 404), ("DELETE", "/v2", 405),
        ("GET", "/v2/models/tumour/infer", 405), ("GET", "/v2/models/tumour/versions/9", 404),
        ("POST", "/v2/models/tumour/versions/9/infer", 404), ("POST", "/v2/models/%00%ff/infer", 404),
        ("PUT", "/v2/models/tumour", 404), ("PUT", "/v2/repository/bundles/..%2f..%2fetc", 404),
    ]:  # fmt: skip
        answer = httpx.request(method, server.url + path)
        assert answer.status_code == status and answer.json()["error"], (method, path, answer.text)


def test_a_batch_that_would_take_minutes_is_refused_at_once(server: ModelServer, tmp_path: Path) -> None:
    rows, target, names = breast_cancer(10)
    reference = tuple(rows.mean(axis=0))
    model = make_pipeline(StandardScaler(), SVR(C=100)).fit(rows, target)
    loaded = server.load(skops_bundle(tmp_path, "slow", model, names, task="regression", background=reference))
    assert loaded.status_code == 200, loaded.text
    many = np.ones((20_000, 10))
    answer = infer(server, "slow", matrix(many))
    assert answer.status_code == 413 and "send fewer rows" in answer.json()["error"]
    assert infer(server, "slow", matrix(many[:2000]), parameters={"explain": False}).status_code == 200


def test_a_large_batch_does_not_stop_small_requests(server: ModelServer, tumour: lightgbm.Booster) -> None:
    rows, _, _ = breast_cancer()
    large = np.tile(rows, (8, 1))
    with concurrent.futures.ThreadPoolExecutor(1) as pool, httpx.Client(base_url=server.url) as client:
        client.get("/v2/health/live")
        running = pool.submit(infer, server, "tumour", matrix(large))
        answered = 0
        while not running.done():
            assert client.get("/v2/health/live").status_code == 200
            answered += 1
        assert running.result().json()["outputs"][0]["shape"] == [len(large)]
    assert answered > 10  # decoding 73,000 numbers is on the loop, predicting and explaining them is not


# HTTP by hand


def raw_exchange(server: ModelServer, *parts: bytes, wait_s: float = 5.0) -> bytes:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def resident_kib(server: ModelServer) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_a_body_declared_too_large_is_refused_unread(server: ModelServer) -> None:
    head = b"POST /v2/models/tumour/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n"
    assert raw_exchange(server, head).startswith(b"HTTP/1.1 413 ")


def test_an_endless_chunked_body_is_refused_without_keeping_it(server: ModelServer, tumour: lightgbm.Booster) -> None:
    before = resident_kib(server)
    host, port = server.url.removeprefix("http://").split(":")
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    sent = 0
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v2/models/tumour/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            for _ in range(1024):
                connection.sendall(chunk)
                sent += 1
        except OSError:
            pass  # the server hung up, as it may
        else:
            assert connection.recv(64).startswith(b"HTTP/1.1 413 ")
    assert resident_kib(server) - before < 20 * 1024, f"after {sent} MiB"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n", b"GET /v2 HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    ],
)  # fmt: skip
def test_malformed_http_is_a_4xx(server: ModelServer, request_bytes: bytes) -> None:
    assert raw_exchange(server, request_bytes).startswith(b"HTTP/1.1 4")


def test_an_upgrade_is_declined_by_answering_in_http_1(server: ModelServer) -> None:
    """Java's HttpClient asks every plain server for h2c, and expects to be ignored."""
    answer = raw_exchange(server, b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1") == 1


def test_pipelined_requests_are_answered_in_order(server: ModelServer, tumour: lightgbm.Booster) -> None:
    rows, _, _ = breast_cancer()
    slow = json.dumps({"inputs": matrix(rows), "id": "slow"}).encode()
    quick = json.dumps({"inputs": matrix(rows[:1]), "id": "quick"}).encode()
    requests = [
        b"POST /v2/models/tumour/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), more, body)
        for body, more in ((slow, b""), (quick, b""), (slow, b""), (quick, b"connection: close\r\n"))
    ]
    answer = raw_exchange(server, b"".join(requests), wait_s=20)
    assert answer.count(b"HTTP/1.1 200 ") == 4
    assert [part[:5] for part in answer.split(b'"id":"')[1:]] == [b'slow"', b"quick", b'slow"', b"quick"]


def test_a_client_that_never_reads_fills_no_memory(server: ModelServer, tumour: lightgbm.Booster) -> None:
    before = resident_kib(server)
    host, port = server.url.removeprefix("http://").split(":")
    requests = b"GET /v2/models/tumour HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
    with socket.create_connection((host, int(port)), timeout=1.0) as connection, pytest.raises(TimeoutError):
        for _ in range(1000):  # answers of 2 GB, were they all given
            connection.sendall(requests)
    assert resident_kib(server) - before < 20 * 1024
    assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200


def test_a_client_that_expects_continue_is_told_so(server: ModelServer, tumour: lightgbm.Booster) -> None:
    rows, _, _ = breast_cancer()
    body = json.dumps({"inputs": matrix(rows[:1])}).encode()
    head = b"POST /v2/models/tumour/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n"
    answer = raw_exchange(server, head + b"content-length: %d\r\n\r\n" % len(body), body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


def test_an_upload_cut_short_leaves_nothing(server: ModelServer) -> None:
    path = b"/v2/repository/bundles/sha256:" + b"a" * 64
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"PUT %b HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf" % path)
        deadline = time.monotonic() + 60
        while not list((server.repository / "bundles").glob(".incoming-*")):
            assert time.monotonic() < deadline, "the upload does not begin"
            time.sleep(0.01)
    deadline = time.monotonic() + 60
    while list((server.repository / "bundles").glob(".incoming-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list((server.repository / "bundles").glob(".incoming-*"))


# Versions, memory, and the end


def test_versions_side_by_side_and_one_unloaded(server: ModelServer, tmp_path: Path) -> None:
    rows, _, _ = breast_cancer()
    boosters = {}
    for version in ("1", "2"):
        bundle, boosters[version] = lightgbm_bundle(tmp_path / version, "pair", version, rounds=5 * int(version))
        assert server.load(bundle).status_code == 200
    for version, booster in boosters.items():
        found = outputs(infer(server, f"pair/versions/{version}", matrix(rows[:5])))
        np.testing.assert_allclose(found["probability"], booster.predict(rows[:5]))
    ambiguous = infer(server, "pair", matrix(rows[:5]))
    assert ambiguous.status_code == 400 and "several versions" in ambiguous.json()["error"]
    body = {"parameters": {"version": "1", "delete": True}}
    assert httpx.post(f"{server.url}/v2/repository/models/pair/unload", json=body).status_code == 200
    assert infer(server, "pair", matrix(rows[:5])).json()["model_version"] == "2"
    assert infer(server, "pair/versions/1", matrix(rows[:5])).status_code == 404


def test_it_serves_again_what_it_served_before_a_kill(tmp_path: Path) -> None:
    rows, _, _ = breast_cancer()
    with ModelServer(tmp_path) as server:
        kept, booster = lightgbm_bundle(tmp_path / "kept", "kept")
        gone, _ = lightgbm_bundle(tmp_path / "gone", "gone")
        spoilt, _ = lightgbm_bundle(tmp_path / "spoilt", "spoilt")
        for bundle in (kept, gone, spoilt):
            assert server.load(bundle).status_code == 200
        httpx.post(f"{server.url}/v2/repository/models/gone/unload", json={"parameters": {"delete": True}})
        assert not (server.repository / "bundles" / gone.path.name).exists()
        server.kill()
        stored = server.repository / "bundles" / spoilt.path.name
        stored.write_bytes(stored.read_bytes()[:-1])
        server.start()
        np.testing.assert_allclose(
            outputs(infer(server, "kept", matrix(rows[:5])))["probability"], booster.predict(rows[:5])
        )
        assert infer(server, "gone", matrix(rows[:5])).status_code == 404
        refused = infer(server, "spoilt", matrix(rows[:5]))
        assert refused.status_code == 503 and "ends early" in refused.json()["error"]
        index = {e["name"]: e["state"] for e in httpx.post(f"{server.url}/v2/repository/index").json()}
        assert index == {"kept": "READY", "spoilt": "UNAVAILABLE"}
        assert server.load(spoilt).status_code == 200  # brought in anew, it serves again


def test_a_model_that_kills_the_process_is_not_tried_for_ever(tmp_path: Path) -> None:
    with ModelServer(tmp_path) as server:
        good, _ = lightgbm_bundle(tmp_path / "good", "good")
        deadly, _ = lightgbm_bundle(tmp_path / "deadly", "deadly")
        assert [server.load(good).status_code, server.load(deadly).status_code] == [200, 200]
        server.kill()
        # what stands there after a crash in the middle of the second attempt to load it
        (server.repository / "loading.json").write_text(json.dumps({"bundle": deadly.digest, "deaths": 2}))
        server.start()
        index = {e["name"]: e for e in httpx.post(f"{server.url}/v2/repository/index").json()}
        assert index["good"]["state"] == "READY"
        assert index["deadly"]["state"] == "UNAVAILABLE" and "died 2 times" in index["deadly"]["reason"]
        assert server.load(deadly).status_code == 200  # a person asked for it


def test_sigterm_lets_a_request_in_flight_finish(tmp_path: Path) -> None:
    rows, _, _ = breast_cancer()
    with ModelServer(tmp_path) as server:
        server.load(lightgbm_bundle(tmp_path / "b", "tumour", rounds=100)[0])
        body = json.dumps({"inputs": matrix(np.tile(rows, (4, 1)))})
        with (
            concurrent.futures.ThreadPoolExecutor(1) as pool,
            httpx.Client(base_url=server.url) as idle,
            httpx.Client(base_url=server.url, timeout=30) as busy,
        ):
            idle.get("/v2/health/live")  # an idle kept-alive connection must not hold the end up
            running = pool.submit(busy.post, "/v2/models/tumour/infer", content=body)
            time.sleep(0.3)
            assert not running.done()
            assert server.stop() == 0
            assert running.result().status_code == 200


def test_two_servers_never_share_a_repository(tmp_path: Path) -> None:
    with ModelServer(tmp_path) as first:
        second = ModelServer(tmp_path)
        with pytest.raises(AssertionError, match="another model server uses"):
            second.start()
        assert httpx.get(f"{first.url}/v2/health/ready").status_code == 200


def test_only_the_holder_of_the_token_changes_what_is_served(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    with ModelServer(tmp_path, ["--token-file", str(tmp_path / "token")]) as server:
        bundle, _ = lightgbm_bundle(tmp_path / "b")
        assert server.load(bundle).status_code == 401
        assert httpx.post(f"{server.url}/v2/repository/models/tumour/unload").status_code == 401
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200


def test_it_does_not_start_without_knowing_whom_to_trust(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="names no key `deployer`"):
        ModelServer(tmp_path, keys={"policy": KEY}).start()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
ALMOST_TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["input", "mean_radius", ""]) | JSON_VALUES,
        "shape": st.lists(st.integers(-2, 40), max_size=3) | JSON_VALUES,
        "datatype": st.sampled_from(["FP64", "FP32", "INT64", "BOOL"]) | JSON_VALUES,
        "data": st.lists(st.floats(allow_nan=False, allow_infinity=False) | JSON_VALUES, max_size=20) | JSON_VALUES,
    },
)
ALMOST_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(ALMOST_TENSORS, max_size=3) | JSON_VALUES,
        "outputs": JSON_VALUES,
        "parameters": JSON_VALUES,
        "id": JSON_VALUES,
    },
)


@pytest.fixture(scope="module")
def fuzz_client(server: ModelServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=ALMOST_REQUESTS | JSON_VALUES)
def test_no_json_whatsoever_is_a_5xx(fuzz_client: httpx.Client, tumour: lightgbm.Booster, body: Any) -> None:
    answer = fuzz_client.post("/v2/models/tumour/infer", content=json.dumps(body), headers=JSON)
    assert answer.status_code in (200, 400), (body, answer.text)
