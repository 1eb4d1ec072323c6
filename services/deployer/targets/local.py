"""The target on this machine: a model server process, spoken to over HTTP. Starting it is the supervisor's job."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx

from services.deployer.bundle import Bundle
from services.deployer.targets import Endpoint, State, Status, TargetRefused, TargetUnavailable

T = TypeVar("T")
CHUNK_BYTES: Final = 256 << 10
TIMEOUT: Final = httpx.Timeout(10.0, read=120.0)
"""Seconds; a load answers only when the model has passed its trial."""
RETRYABLE: Final = frozenset({429, 502, 503, 504, 507})


class LocalTarget:
    """Implements Target on `services.deployer.model_server` at `url`."""

    name = "local"

    def __init__(self, url: str, *, token: str | None = None) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._url = url.rstrip("/")
        # No proxy from the environment: the server is on this machine, and the token is for nobody else.
        self._client = httpx.AsyncClient(base_url=self._url, headers=headers, timeout=TIMEOUT, trust_env=False)

    async def deploy(self, bundle: Bundle) -> Endpoint:
        name, version = bundle.manifest.model_name, bundle.manifest.version
        load = f"/v2/repository/models/{quote(name, safe='')}/load"
        body = {"parameters": {"bundle": bundle.digest}}
        answer = await self._ask("POST", load, json=body)
        if answer.status_code in (404, 422):  # it has no such bundle, or a spoilt copy: bring it, then ask once more
            length = {"content-length": str(bundle.size)}
            stored = f"/v2/repository/bundles/{bundle.digest}"
            _insist(await self._ask("PUT", stored, content=_chunks(bundle), headers=length))
            answer = await self._ask("POST", load, json=body)
        _insist(answer)
        return self._endpoint(name, version, bundle.digest)

    async def undeploy(self, model_name: str, version: str) -> None:
        body = {"parameters": {"version": version, "delete": True}}
        _insist(await self._ask("POST", f"/v2/repository/models/{quote(model_name, safe='')}/unload", json=body))

    async def status(self, model_name: str, version: str) -> Status:
        path = f"/v2/models/{quote(model_name, safe='')}/versions/{quote(version, safe='')}/ready"
        answer = await self._ask("GET", path)
        if answer.status_code == 404:
            return Status(State.ABSENT)
        if answer.status_code == 503:
            return Status(State.FAILED, _reason(answer))
        _insist(answer)
        return Status(State.READY)

    async def metadata(self, model_name: str, version: str) -> Mapping[str, Any]:
        path = f"/v2/models/{quote(model_name, safe='')}/versions/{quote(version, safe='')}"
        return _json(_insist(await self._ask("GET", path)), dict)

    async def serving(self) -> Mapping[tuple[str, str], Endpoint]:
        answer = _insist(await self._ask("POST", "/v2/repository/index", json={"ready": True}))
        found = [(str(entry["name"]), str(entry["version"])) for entry in _json(answer, list)]
        return {(name, version): self._endpoint(name, version, "") for name, version in found}

    def _endpoint(self, name: str, version: str, digest: str) -> Endpoint:
        url = f"{self._url}/v2/models/{quote(name, safe='')}/versions/{quote(version, safe='')}/infer"
        return Endpoint(self.name, url, name, version, digest)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return await self._client.request(method, path, **more)
        except httpx.TransportError as error:
            raise TargetUnavailable(
                f"the model server at {self._url} does not answer ({type(error).__name__}); is it running?"
            ) from error


async def _chunks(bundle: Bundle) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(bundle.path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


def _insist(answer: httpx.Response) -> httpx.Response:
    if answer.status_code in RETRYABLE:
        raise TargetUnavailable(f"the model server cannot do it now: {_reason(answer)}")
    if answer.is_error:
        raise TargetRefused(f"the model server refuses: {_reason(answer)}")
    return answer


def _json(answer: httpx.Response, shape: type[T]) -> T:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, shape):
        raise TargetRefused("the model server's answer is not of the protocol; is it another program?")
    return body


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"
