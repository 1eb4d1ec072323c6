"""An MLflow server, by its REST API: models and prompts with their versions, aliases, stages, tags, times and bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mintmark.importers import files
from mintmark.importers.found import (
    FoundAsset,
    FoundVersion,
    SourceFailed,
    Trials,
    Upload,
    Wanted,
    fingerprint,
    moment,
    without_nothing,
)
from mintmark.importers.mlflow_files import Files, pairs
from mintmark.importers.mlflow_runs import Runs
from mintmark.importers.remote import Remote, listed, pages
from mintmark.importers.running import environment

API = "/api/2.0/mlflow"
IS_PROMPT = "mlflow.prompt.is_prompt"
PROMPTS = f"tags.`{IS_PROMPT}` = 'true'"
STAGES = {"Staging": "staging", "Production": "production", "Archived": "retired"}
MODELS_A_PAGE, VERSIONS_A_PAGE = 500, 2_000


class Mlflow:
    """`url` is a tracking URI; the key is MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD."""

    kind = "mlflow"

    def __init__(self, url: str, *, name: str | None = None, with_bytes: bool = True, timeout_s: float = 30) -> None:
        token = environment("MLFLOW_TRACKING_TOKEN")
        user = environment("MLFLOW_TRACKING_USERNAME")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        auth = (user, environment("MLFLOW_TRACKING_PASSWORD") or "") if user and not token else None
        self._remote = Remote(url, headers=headers, auth=auth, timeout_s=timeout_s)
        self.name = name or self._remote.name
        self._with_bytes = with_bytes
        self._files = Files(self._remote)
        self._models: list[dict[str, Any]] | None = None
        self._run_ids: set[str] = set()

    def count(self) -> int | None:
        return None if self._models is None else len(self._models)

    def assets(self, wanted: Wanted) -> Iterator[FoundAsset]:
        """By name. Versions are read in one pass: asking for each model's would be a round trip a model."""
        found = {str(model.get("name")): model for search in (None, PROMPTS) for model in self._searched(search)}
        self._models = [found[name] for name in sorted(found) if wanted(name)]
        versions: dict[str, list[dict[str, Any]]] = {str(model["name"]): [] for model in self._models}
        for search in (None, PROMPTS) if self._models else ():
            for version in self._versions(search):
                if version.get("name") in versions:
                    versions[str(version["name"])].append(version)
        for model in self._models:
            yield self._asset(model, versions.pop(str(model["name"])))

    def _searched(self, search: str | None) -> Iterator[dict[str, Any]]:
        return self._pages("registered-models/search", "registered_models", search, MODELS_A_PAGE)

    def _versions(self, search: str | None) -> Iterator[dict[str, Any]]:
        return self._pages("model-versions/search", "model_versions", search, VERSIONS_A_PAGE)

    def _pages(self, path: str, key: str, search: str | None, size: int) -> Iterator[dict[str, Any]]:
        def ask(token: str | None) -> tuple[list[dict[str, Any]], str | None]:
            query = without_nothing({"max_results": size, "page_token": token, "filter": search})
            answer = self._remote.ask("GET", f"{API}/{path}", params=query)
            more = answer.get("next_page_token")
            return listed(answer, key), str(more) if more else None

        return pages(ask)

    def _asset(self, model: dict[str, Any], versions: list[dict[str, Any]]) -> FoundAsset:
        name, tags = str(model["name"]), pairs(model)
        by_number = {_number(version): version for version in versions}
        aliases = {str(one.get("alias")): _whole(one.get("version")) for one in listed(model, "aliases")}
        document = without_nothing(
            {
                "id": f"model:{name}",
                "kind": "prompt" if tags.get(IS_PROMPT, "").lower() == "true" else "model",
                "title": name,
                "description": model.get("description"),
                "tags": tags,
                "created_at": moment(model.get("creation_timestamp")),
                "updated_at": moment(model.get("last_updated_timestamp")),
            }
        )
        made = [self._version(name, number, by_number[number]) for number in sorted(by_number)]
        return FoundAsset(document | {"aliases": aliases}, made)

    def _version(self, name: str, number: int, version: dict[str, Any]) -> FoundVersion:
        tags, stage = pairs(version), STAGES.get(str(version.get("current_stage")))
        uri, run_id, model_id = (version.get(key) or None for key in ("source", "run_id", "model_id"))
        if run_id:
            self._run_ids.add(str(run_id))
        changed_at = moment(version.get("last_updated_timestamp"))
        source = without_nothing({"uri": uri or "mlflow:", "run_link": version.get("run_link"), "model_id": model_id})
        document = without_nothing(
            {
                "id": f"version:{name}/{number}",
                "fingerprint": fingerprint(
                    uri, version.get("creation_timestamp"), run_id, model_id, tags.get("mlflow.prompt.text")
                ),
                "number": number,
                "registered_at": moment(version.get("creation_timestamp")),
                "updated_at": changed_at,
                "author": version.get("user_id"),
                "description": version.get("description"),
                "tags": tags,
                "source": source,
                "run_id": run_id,
                "stage": stage,
                # MLflow keeps no log of stages: the version was in this one from this moment on, at the latest.
                "stage_at": changed_at if stage else None,
            }
        )
        has_bytes = self._with_bytes and IS_PROMPT not in tags and uri is not None
        return FoundVersion(document, (lambda upload: self._bytes(name, number, upload)) if has_bytes else None)

    def _bytes(self, name: str, number: int, upload: Upload) -> dict[str, Any]:
        """A version's files, where the server hands them out; where they lie elsewhere their address alone is kept."""
        query = {"name": name, "version": str(number)}
        where = str(self._remote.ask("GET", f"{API}/model-versions/get-download-uri", params=query).get("artifact_uri"))
        found, formats = self._files.sent(where, upload)
        return files.as_content(found, formats) | {"files_at": where} if found else {}

    def trials(self, *, every: bool) -> Iterator[Trials]:
        """Experiments with their runs; not `every`, those that versions which were read came from."""
        return Runs(self._remote, self._files).trials(None if every else self._run_ids)


def _number(version: dict[str, Any]) -> int:
    number = _whole(version.get("version"))
    if number < 1:
        raise SourceFailed(f"a version of {str(version.get('name'))[:100]!r} has no number")
    return number


def _whole(value: Any) -> int:
    """A number that travels as a text; 0 for what is none."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
