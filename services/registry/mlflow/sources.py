"""Where a model version's files are said to be, and whether that is so as far as it can be seen from here."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

import orjson

from services.registry.domain.tracking import LoggedModel
from services.registry.handlers.files import TrackedFiles
from services.registry.handlers.models import Held, Models
from services.registry.handlers.tracking import Tracking
from services.registry.mlflow import packaged
from services.registry.mlflow.errors import wrong
from shared.errors import NotFound
from shared.identity.principal import Principal

FILES = "mlflow-artifacts:/"
VERSIONS_TAG = "mlflow.modelVersions"
DEEPEST = 8
"""Versions of versions; each of them was made by a request of its own."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")
"""Of two letters at least: C: is a drive."""
_LOGGED = re.compile(r"models:/(m-[0-9a-f]{32})")
_VERSION = re.compile(r"models:/([^/@]+)/(\d{1,9}|latest)|models:/([^/@]+)@([^/@]+)")


@dataclass(frozen=True, slots=True)
class Given:
    """What a client says of where its model comes from."""

    source: str
    run_id: str | None
    model_id: str | None


class Sources:
    """Runs, logged models and versions that a source may name."""

    def __init__(self, models: Models, tracking: Tracking, files: TrackedFiles) -> None:
        self._models = models
        self._tracking = tracking
        self._files = files

    async def checked(self, caller: Principal, given: Given) -> Given:
        """The source with the run and the model that it belongs to. Raises INVALID_PARAMETER_VALUE."""
        source = given.source
        check_address(source)
        if not _SCHEME.match(source) or source.lower().startswith("file:"):
            # No run and no logged model keeps its files there, so it can be within none of them.
            raise wrong(
                f"Invalid model version source: '{source[:200]}'. A path of the server's own disk is none of yours; "
                "log the artifacts to a run or a model first."
            )
        named = _VERSION.fullmatch(source)
        if named is not None and _LOGGED.fullmatch(source) is None:
            return await self._of_version(caller, given, named)
        logged = _LOGGED.fullmatch(source)
        if logged is not None and given.model_id != logged[1]:
            raise _not_within(source, "model_id")
        if given.model_id is not None:
            model = await self._model(caller, given)
            if source.startswith("runs:/") or (source.startswith(FILES) and not _within(source, model.location)):
                raise _not_within(source, "model_id")
            return replace(given, run_id=given.run_id or model.source_run_id or None)
        if source.startswith(("runs:/", FILES)):
            await self._within_run(caller, given)
        return given

    async def location(self, caller: Principal, source: str, deep: int = 0) -> str:
        """Where the files of a source stand: of a logged model or another version, where those of that one do."""
        logged = _LOGGED.fullmatch(source)
        if logged is not None:
            return (await self._tracking.model(caller, logged[1])).location
        named = _VERSION.fullmatch(source)
        if named is not None and named[1] and named[2] != "latest" and deep < DEEPEST:
            found = await self._models.version(caller, named[1], int(named[2]))
            return await self.location(caller, found.version.content.get("source", {}).get("uri", source), deep + 1)
        return source

    async def held(self, caller: Principal, given: Given) -> Held | None:
        """The model file, where it is held here in a form that we serve; None where it is not."""
        location = await self.location(caller, given.source)
        if location.startswith("runs:/"):
            run_id, _, path = location.removeprefix("runs:/").partition("/")
            location = f"{(await self._tracking.run(caller, run_id)).location}/{path}"
        if not location.startswith(FILES):
            return None
        folder = location.removeprefix(FILES).strip("/")
        said = await self._files.text(caller, f"{folder}/{packaged.MLMODEL}")
        found = await asyncio.to_thread(packaged.read, said) if said is not None else None
        if found is None:
            return None
        file = await self._files.held(caller, f"{folder}/{found.file}", found.form)
        return Held({"digest": file[0], "format": found.form}, file[1], found.signature) if file else None

    async def registered(self, caller: Principal, model_id: str, name: str, version: int) -> None:
        """A logged model says which versions it became."""

        def change(model: LoggedModel) -> LoggedModel:
            try:
                before = orjson.loads(model.tags.get(VERSIONS_TAG, "[]"))
            except orjson.JSONDecodeError:
                before = []
            said = orjson.dumps([*before, {"name": name, "version": version}]).decode()
            return replace(model, tags={**model.tags, VERSIONS_TAG: said})

        await self._tracking.change_model(caller, model_id, change)

    async def _of_version(self, caller: Principal, given: Given, named: re.Match[str]) -> Given:
        name = named[1] or named[3]
        if named[4] and named[4].lower() != "latest":
            found = await self._models.aliased(caller, name, named[4])
        elif named[4] or named[2] == "latest":
            found = await self._models.newest(caller, name)
        else:
            found = await self._models.version(caller, name, int(named[2]))
        content = found.version.content
        if content["kind"] == "prompt":
            raise wrong("Prompt versions cannot be used as model version sources.")
        run_id, model_id = content["training"]["run_id"], content.get("source", {}).get("model_id")
        if (given.run_id and given.run_id != run_id) or (given.model_id and given.model_id != model_id):
            raise wrong("The run_id and model_id request parameters must match the referenced model version.")
        return Given(f"models:/{name}/{found.version.ref.version}", run_id, model_id)

    async def _model(self, caller: Principal, given: Given) -> LoggedModel:
        try:
            return await self._tracking.model(caller, given.model_id or "")
        except NotFound:
            raise _not_within(given.source, "model_id") from None

    async def _within_run(self, caller: Principal, given: Given) -> None:
        try:
            run = await self._tracking.run(caller, given.run_id or "")
        except NotFound:
            raise _not_within(given.source, "run_id") from None
        named = given.source.removeprefix("runs:/").partition("/")[0]
        if given.source.startswith("runs:/") and named == given.run_id:
            return
        if not (given.source.startswith(FILES) and _within(given.source, run.location)):
            raise _not_within(given.source, "run_id")


def check_address(source: str) -> None:
    """Raises INVALID_PARAMETER_VALUE for an address that climbs out of its root, however it is written."""
    plain = source[:4000]
    while (unquoted := unquote(plain)) != plain:
        plain = unquoted
    if len(source) > 2000 or "\x00" in plain or ".." in re.split(r"[/\\]", plain):
        raise wrong(f"Invalid model version source: '{source[:200]}'. Give an absolute path without '..'.")


def _within(source: str, root: str) -> bool:
    return source == root or source.startswith(f"{root}/")


def _not_within(source: str, name: str) -> Exception:
    return wrong(
        f"Invalid model version source: '{source[:200]}'. The {name} request parameter must identify the resource "
        "that contains the source."
    )
