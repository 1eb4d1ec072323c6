"""Artefacts: uploaded, downloaded and listed by path; the bytes pass through and are hashed on their way."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import orjson

from services.registry.domain.tracking import File, checked_path
from services.registry.handlers.files import TrackedFiles
from services.registry.handlers.tracking import Tracking
from services.registry.mlflow.asked import Asked
from services.registry.mlflow.errors import MlflowError
from services.registry.mlflow.routing import Routes, respond
from shared.errors import Unavailable
from shared.http.edge import Receive, Scope, Send
from shared.identity.principal import Principal

ROOT = "api/2.0/mlflow-artifacts/artifacts"
SCHEME = "mlflow-artifacts:/"


def add_to(routes: Routes, files: TrackedFiles, tracking: Tracking) -> None:
    """Every route of files."""

    async def upload(caller: Principal, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        await files.write(caller, path, _chunks(receive))
        await respond(send, 200, b"{}")

    async def download(caller: Principal, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if not path.strip("/"):
            await listing(caller, path, scope, receive, send)
            return
        size, chunks = await files.read(caller, path.removeprefix("/"))
        name = posixpath.basename(path).encode("ascii", "ignore").replace(b'"', b"")
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(size).encode()),
            (b"content-disposition", b'attachment; filename="' + name + b'"'),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def listing(caller: Principal, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode("ascii", "replace"), max_num_fields=20)
        folder = (query.get("path") or [""])[-1].strip("/")
        found = [_shown(file, posixpath.basename(file.path)) for file in await files.listed(caller, folder)]
        await respond(send, 200, orjson.dumps({"files": found} if found else {}))

    async def remove(caller: Principal, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        await files.remove(caller, path)
        await respond(send, 200, b"{}")

    routes.stream("PUT", ROOT + "/", "submit", upload)
    routes.stream("GET", ROOT, "read", download)
    routes.stream("DELETE", ROOT + "/", "move", remove)

    @routes.get("artifacts/list", "read")
    async def of_run(asked: Asked) -> Any:
        run = await tracking.run(asked.caller, asked.text("run_id"))
        return await _listed(asked, run.location)

    @routes.get("logged-models/{model_id}/artifacts/directories", "read")
    async def of_model(asked: Asked) -> Any:
        model = await tracking.model(asked.caller, asked.text("model_id"))
        return await _listed(asked, model.location, "artifact_directory_path")

    async def _listed(asked: Asked, location: str, field: str = "path") -> Any:
        if not location.startswith(SCHEME):
            raise MlflowError("NOT_IMPLEMENTED", f"files at {location[:200]} are not listed here; ask that store")
        root = location.removeprefix(SCHEME)
        inner = (asked.some_text(field) or "").strip("/")
        folder = f"{root}/{checked_path(inner)}" if inner else root
        found = [_shown(file, file.path[len(root) + 1 :]) for file in await files.listed(asked.caller, folder)]
        return {"root_uri": location, "files": found} if found else {"root_uri": location}


def _shown(file: File, path: str) -> dict[str, Any]:
    if file.digest is None:
        return {"path": path, "is_dir": True}
    return {"path": path, "is_dir": False, "file_size": file.size}


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Unavailable("the upload ended before it was whole; nothing was kept")
        yield message.get("body", b"")
        if not message.get("more_body"):
            return
