"""Experiments of an MLflow server: runs with every value of their metrics, logged models, and the files of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mintmark.importers.found import FoundTrial, SourceFailed, Trials, Upload, moment, without_nothing
from mintmark.importers.mlflow_files import Files, pairs
from mintmark.importers.remote import Remote, listed, pages

API = "/api/2.0/mlflow"
RUNS_A_PAGE = 500
POINTS_A_PAGE = 5_000
INFINITE = {"NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity"}


class Runs:
    """What was tried. Read after the models: with `only`, it is the runs that their versions came from."""

    def __init__(self, remote: Remote, files: Files) -> None:
        self._remote = remote
        self._files = files

    def trials(self, only: set[str] | None) -> Iterator[Trials]:
        """Experiment by experiment, some runs at a time. Raises SourceFailed."""
        for experiment in self._posted("experiments/search", "experiments", {"view_type": "ACTIVE_ONLY"}):
            number = str(experiment.get("experiment_id", ""))
            document = without_nothing(
                {
                    "name": experiment.get("name"),
                    "location": experiment.get("artifact_location"),
                    "tags": pairs(experiment),
                    "created_at": moment(experiment.get("creation_time")),
                }
            )
            if not number or not document.get("name"):
                raise SourceFailed("an experiment has no name")
            found: list[FoundTrial] = []
            those = {"experiment_ids": [number], "run_view_type": "ACTIVE_ONLY"}
            for run in self._posted("runs/search", "runs", those):
                trial = self._run(run)
                if only is None or trial.document["id"] in only:
                    found.append(trial)
                if len(found) >= RUNS_A_PAGE:
                    yield Trials(document, found, [])
                    found = []
            models = [
                model
                for model in map(self._model, self._logged(number))
                if only is None or model.document.get("source_run_id") in only
            ]
            if found or models:
                yield Trials(document, found, models)

    def _posted(self, path: str, key: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        def ask(token: str | None) -> tuple[list[dict[str, Any]], str | None]:
            body = without_nothing({**query, "max_results": RUNS_A_PAGE, "page_token": token})
            answer = self._remote.ask("POST", f"{API}/{path}", json=body)
            more = answer.get("next_page_token")
            return listed(answer, key), str(more) if more else None

        return pages(ask)

    def _logged(self, number: str) -> Iterator[dict[str, Any]]:
        """Logged models; servers before 3 have none, and do not know the question."""
        try:
            yield from self._posted("logged-models/search", "models", {"experiment_ids": [number]})
        except SourceFailed as error:
            if " 404" not in str(error):
                raise

    def _run(self, run: dict[str, Any]) -> FoundTrial:
        info, data = _inner(run, "info"), _inner(run, "data")
        run_id = str(info.get("run_id") or info.get("run_uuid") or "")
        latest = [_point(one) for one in listed(data, "metrics")]
        document = without_nothing(
            {
                "id": run_id,
                "name": info.get("run_name"),
                "user": info.get("user_id"),
                "ended_ms": _whole(info.get("end_time")),
                "tags": pairs(data),
                "params": {str(one.get("key")): str(one.get("value", "")) for one in listed(data, "params")},
                "inputs": listed(_inner(run, "inputs"), "dataset_inputs"),
                "model_inputs": [one.get("model_id") for one in listed(_inner(run, "inputs"), "model_inputs")],
                "model_outputs": [
                    {"model_id": one.get("model_id"), "step": _whole(one.get("step")) or 0}
                    for one in listed(_inner(run, "outputs"), "model_outputs")
                ],
                "metrics": latest,
            }
        )
        document |= {"status": str(info.get("status", "FINISHED")), "started_ms": _whole(info.get("start_time")) or 0}
        where = str(info.get("artifact_uri", ""))

        def fetch(upload: Upload) -> dict[str, Any]:
            points = [point for one in latest for point in self._history(run_id, str(one["key"]))]
            return {"metrics": points, "files": self._files.sent(where, upload)[0]}

        return FoundTrial(document, fetch)

    def _history(self, run_id: str, key: str) -> Iterator[dict[str, Any]]:
        def ask(token: str | None) -> tuple[list[dict[str, Any]], str | None]:
            query = {"run_id": run_id, "metric_key": key, "max_results": POINTS_A_PAGE, "page_token": token}
            answer = self._remote.ask("GET", f"{API}/metrics/get-history", params=without_nothing(query))
            more = answer.get("next_page_token")
            return listed(answer, "metrics"), str(more) if more else None

        return map(_point, pages(ask))

    def _model(self, model: dict[str, Any]) -> FoundTrial:
        info, data = _inner(model, "info"), _inner(model, "data")
        status = info.get("status")
        named = {"LOGGED_MODEL_PENDING": 1, "LOGGED_MODEL_READY": 2, "LOGGED_MODEL_UPLOAD_FAILED": 3}
        document = without_nothing(
            {
                "id": info.get("model_id"),
                "name": info.get("name"),
                "model_type": info.get("model_type"),
                "source_run_id": info.get("source_run_id"),
                "status": status if isinstance(status, int) else named.get(str(status), 2),
                "tags": pairs(info),
                "params": {str(one.get("key")): str(one.get("value", "")) for one in listed(data, "params")},
                "metrics": [_point(one) for one in listed(data, "metrics")],
                "created_at": moment(info.get("creation_timestamp_ms")),
            }
        )
        where = str(info.get("artifact_uri", ""))
        return FoundTrial(document, lambda upload: {"files": self._files.sent(where, upload)[0]})


def _inner(of: dict[str, Any], key: str) -> dict[str, Any]:
    found = of.get(key) or {}
    if not isinstance(found, dict):
        raise SourceFailed(f"`{key}` in the answer is no object")
    return found


def _point(said: dict[str, Any]) -> dict[str, Any]:
    value = said.get("value", 0.0)
    return {
        "key": str(said.get("key", "")),
        "value": INFINITE.get(value, value) if isinstance(value, str) else value,
        "timestamp_ms": _whole(said.get("timestamp")) or 0,
        "step": _whole(said.get("step")) or 0,
    }


def _whole(value: Any) -> int | None:
    try:
        return int(value) if value is not None else None
    except (TypeError, ValueError):
        return None
