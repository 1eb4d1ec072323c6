"""The Open Inference Protocol v2: paths and JSON on one side, the repository of models on the other.

Beyond the protocol: `PUT /v2/repository/bundles/{digest}` brings a bundle in, and `/load` names it in
`{"parameters": {"bundle": "sha256:…"}}`. `/unload` takes `version` and `delete` there.
"""

import asyncio
import hmac
import re
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.deployer.model_server import tensors
from services.deployer.model_server.http import HttpError, Request, Response, Sink
from services.deployer.model_server.models import Explainer, Explanation, Floats, InputRefused, Scores
from services.deployer.model_server.models.table import Served
from services.deployer.model_server.repository import Repository, Upload

INLINE_S: Final = 0.0003
"""Predictions expected to take less run on the event loop: handing one to a thread and back costs about 0.15 ms. Longer
ones leave the loop free, and run side by side, since LightGBM, onnxruntime and NumPy let go of the interpreter: SHAP
values of 100 trees came to 1,417 requests/s in threads and 1,260 inline (bench/model_server.py, 2 shared cores)."""
MAX_REQUEST_S: Final = 30.0
"""Predictions expected to take longer are refused: the client would have given up, and others would wait."""
MAX_QUEUED: Final = 64
"""Predictions waiting for a thread; more are told to come back later."""
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
JSON_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY

Answer = Response | Coroutine[Any, Any, Response]


class OpenInference:
    """The App that `http.Server` serves."""

    def __init__(
        self,
        repository: Repository,
        trusted: Mapping[str, Ed25519PublicKey],
        executor: ThreadPoolExecutor,
        max_body_bytes: int,
        token: str | None,
    ) -> None:
        self._repository = repository
        self._trusted = trusted
        self._executor = executor
        self._max_body_bytes = max_body_bytes
        self._token = token
        self._queued = 0
        self.ready = False
        """Set once everything remembered was loaded or given up; cleared when draining."""

    def begin(self, request: Request) -> int | Sink:
        if request.path.startswith("/v2/repository/"):
            self._authorize(request)
        if request.method == "PUT":
            digest = request.path.removeprefix("/v2/repository/bundles/")
            if not DIGEST.fullmatch(digest):
                raise HttpError(404, "PUT a bundle to /v2/repository/bundles/sha256:<64 hex digits>")
            try:
                return Upload(self._repository.bundles, digest)
            except OSError as error:
                raise HttpError(507, f"the bundle cannot be stored: {error}") from error
        return self._max_body_bytes

    def handle(self, request: Request) -> Answer:
        if isinstance(request.sink, Upload):
            return self._take_bundle(request.sink)
        match request.path.split("/")[1:]:
            case ["v2", "models", name, "versions", number, "infer"]:
                return self._infer(request, name, number)
            case ["v2", "models", name, "infer"]:
                return self._infer(request, name, None)
            case ["v2", "repository", "index"]:
                _only(request, "POST")
                return self._index(request)
            case ["v2", "repository", "models", name, "load"]:
                _only(request, "POST")
                return self._load(request, name)
            case ["v2", "repository", "models", name, "unload"]:
                _only(request, "POST")
                return self._unload(request, name)
            case ["v2", *rest]:
                _only(request, "GET")
                return self._read(rest)
        raise HttpError(404, "there is nothing here; the Open Inference Protocol begins at /v2")

    def _read(self, path: list[str]) -> Response:
        match path:
            case [] | [""]:
                return _json({"name": "mintmark-model-server", "version": _own_version(), "extensions": EXTENSIONS})
            case ["health", "live"]:
                return _json({"live": True})
            case ["health", "ready"]:
                return Response(orjson.dumps({"ready": self.ready}), 200 if self.ready else 503)
            case ["models", name]:
                return _json(_metadata(self._repository.find(name, None), self._repository.versions(name)))
            case ["models", name, "versions", number]:
                return _json(_metadata(self._repository.find(name, number), self._repository.versions(name)))
            case ["models", name, "ready"]:
                return _json({"name": name, "ready": self._repository.find(name, None) is not None})
            case ["models", name, "versions", number, "ready"]:
                return _json({"name": name, "ready": self._repository.find(name, number) is not None})
        raise HttpError(404, "the Open Inference Protocol has no such path; see /v2")

    # the repository extension

    def _authorize(self, request: Request) -> None:
        given = request.authorization.removeprefix("Bearer ").encode()
        if self._token is not None and not hmac.compare_digest(given, self._token.encode()):
            raise HttpError(401, "send this server's token as `Authorization: Bearer …` to change what it serves")

    async def _take_bundle(self, upload: Upload) -> Response:
        await asyncio.to_thread(upload.finish, self._trusted)
        return _json({"stored": True})

    def _index(self, request: Request) -> Response:
        only_ready = _object(request).get("ready") is True
        states = [
            {"name": e.name, "version": e.version, "state": "READY" if e.served else "UNAVAILABLE", "reason": e.reason}
            for e in self._repository.entries()
            if e.served or not only_ready
        ]
        return Response(orjson.dumps(states))

    async def _load(self, request: Request, name: str) -> Response:
        digest = _parameters(_object(request)).get("bundle")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise HttpError(400, 'name the bundle: {"parameters": {"bundle": "sha256:<64 hex digits>"}}')
        entry = await self._repository.load(name, digest)
        return _json({"name": entry.name, "version": entry.version, "state": "READY", "bundle": entry.digest})

    async def _unload(self, request: Request, name: str) -> Response:
        parameters = _parameters(_object(request))
        number, delete = parameters.get("version"), parameters.get("delete", False)
        if not isinstance(number, str | None) or not isinstance(delete, bool):
            raise HttpError(400, "the parameter version must be a string, delete true or false")
        await self._repository.unload(name, number, delete)
        return _json({"name": name, "state": "UNAVAILABLE"})

    # inference

    def _infer(self, request: Request, name: str, number: str | None) -> Answer:
        _only(request, "POST")
        served = self._repository.find(name, number)
        body = _object(request)
        request_id = body.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise HttpError(400, "the id of a request must be a string")
        wanted = _wanted(body, served)
        explain = _parameters(body).get("explain", True)
        if not isinstance(explain, bool):
            raise HttpError(400, "the parameter explain must be true or false")
        rows = tensors.decode(body.get("inputs"), served.manifest.features)
        explains = explain and isinstance(served.explainer, Explainer) and (wanted is None or bool(wanted & EXPLAINED))

        def answer() -> Response:
            scores, explanation = _predict(served, rows, explains)
            return _json(_response(served, request_id, wanted, explain, scores, explanation))

        expected_s = served.cost.of(len(rows)) + (served.explained_cost.of(len(rows)) if explains else 0)
        if expected_s < INLINE_S:
            return answer()
        if expected_s > MAX_REQUEST_S:
            hint = "send fewer rows a request, or {'parameters': {'explain': false}}"
            raise HttpError(413, f"{len(rows)} rows would take about {expected_s:.0f} s here; {hint}")
        return self._in_thread(answer)

    async def _in_thread(self, answer: Callable[[], Response]) -> Response:
        if self._queued >= MAX_QUEUED:
            raise HttpError(503, "too many large requests are waiting; try again in a moment")
        self._queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, answer)
        finally:
            self._queued -= 1


EXTENSIONS: Final = ["model_repository", "mintmark_bundles", "mintmark_shap"]
EXPLAINED: Final = frozenset({"raw_score", "shap_values", "shap_base"})


def _predict(served: Served, rows: Floats, explains: bool) -> tuple[Scores, Explanation | None]:
    try:
        scores = served.model.predict(rows)
        explanation = served.model.explain(rows) if explains else None
    except InputRefused as error:
        raise HttpError(400, f"the model does not take these values: {error}") from error
    if not np.isfinite(scores.score).all():
        raise HttpError(500, "the model gave a score that is not a number for these rows")
    return scores, explanation


def _outputs(served: Served) -> list[dict[str, Any]]:
    """The outputs that this model has, without data; -1 is the number of rows."""
    manifest = served.manifest
    features = len(manifest.features)
    per_row = [len(manifest.labels)] if manifest.task == "multiclass" else []
    main = "value" if manifest.task == "regression" else "probability"
    found = [{"name": main, "datatype": "FP64", "shape": [-1, *per_row]}]
    if manifest.task != "regression":
        found.append({"name": "label", "datatype": _label_type(served), "shape": [-1]})
    if isinstance(served.explainer, Explainer):
        found.append({"name": "raw_score", "datatype": "FP64", "shape": [-1, *per_row]})
        found.append({"name": "shap_base", "datatype": "FP64", "shape": [-1, *per_row]})
        found.append({"name": "shap_values", "datatype": "FP64", "shape": [-1, *per_row, features]})
    return found


def _response(
    served: Served,
    request_id: str | None,
    wanted: frozenset[str] | None,
    explain: bool,
    scores: Scores,
    explanation: Explanation | None,
) -> dict[str, Any]:
    manifest = served.manifest
    arrays: dict[str, Any] = {"value" if manifest.task == "regression" else "probability": scores.score}
    outputs = []
    if scores.label is not None and (wanted is None or "label" in wanted):
        labels = [manifest.labels[i] for i in scores.label.tolist()]
        outputs.append(tensors.encode("label", labels, _label_type(served), [len(labels)]))
    if explanation is not None:
        arrays |= {"raw_score": explanation.raw, "shap_base": explanation.base, "shap_values": explanation.values}
    outputs[:0] = [tensors.encode(n, a, "FP64", a.shape) for n, a in arrays.items() if wanted is None or n in wanted]
    parameters: dict[str, Any] = {"bundle": served.digest}
    if isinstance(served.explainer, Explainer) and explanation is not None:
        parameters |= {"shap_method": served.explainer.method, "shap_space": served.explainer.space}
    elif explain and isinstance(served.explainer, str):
        parameters["shap_unavailable"] = served.explainer
    answer = {"model_name": manifest.model_name, "model_version": manifest.version}
    identity = {} if request_id is None else {"id": request_id}
    return answer | identity | {"parameters": parameters, "outputs": outputs}


def _metadata(served: Served, versions: list[str]) -> dict[str, Any]:
    manifest = served.manifest
    parameters: dict[str, Any] = {
        "asset": manifest.asset,
        "version": manifest.version,
        "asset_digest": manifest.asset_digest,
        "bundle": served.digest,
        "task": manifest.task,
        "labels": list(manifest.labels),
        "licence": manifest.licence,
    }
    if isinstance(served.explainer, Explainer):
        parameters |= {"shap_method": served.explainer.method, "shap_space": served.explainer.space}
    else:
        parameters["shap_unavailable"] = served.explainer
    inputs = [
        {"name": f.name, "datatype": f.datatype, "shape": [-1], "parameters": {"nullable": f.nullable}}
        for f in manifest.features
    ]
    return {
        "name": manifest.model_name,
        "versions": versions,
        "platform": f"mintmark_{manifest.format}",
        "inputs": inputs,
        "outputs": _outputs(served),
        "parameters": parameters,
    }


def _wanted(body: dict[str, Any], served: Served) -> frozenset[str] | None:
    """The outputs asked for; None is all."""
    outputs = body.get("outputs")
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list) or not all(
        isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs
    ):
        raise HttpError(400, "outputs must be a list of objects, each with the name of an output")
    names = frozenset(output["name"] for output in outputs)
    known = {output["name"] for output in _outputs(served)}
    if unknown := sorted(names - known):
        why = f"; {served.explainer}" if isinstance(served.explainer, str) and names & EXPLAINED else ""
        raise HttpError(400, f"the model has no output {unknown[0][:100]!r}, only {', '.join(sorted(known))}{why}")
    return names


def _label_type(served: Served) -> str:
    return "INT64" if all(isinstance(label, int) for label in served.manifest.labels) else "BYTES"


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise HttpError(405, f"use {method} here")


def _object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty one is `{}`. NaN, Infinity and deep nesting are no JSON to orjson."""
    if not request.body:
        return {}
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise HttpError(400, "the body must be a JSON object")
    return body


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise HttpError(400, "parameters must be a JSON object")
    return parameters


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body, option=JSON_OPTIONS))


def _own_version() -> str:
    try:
        return version("mintmark-platform")
    except PackageNotFoundError:
        return "0"
