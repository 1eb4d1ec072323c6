"""Which models this process serves, and the memory of it that survives a kill -9.

`bundles/<sha256>.tar` are bundles, content-addressed; `state.json` names those to serve; `loading.json` names the one
being loaded at this moment. A model whose loading killed the process twice is not tried a third time by itself, so that
one bad file cannot keep a thousand good models down.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.deployer.bundle import BundleRefused, file_name, open_verified
from services.deployer.model_server.http import HttpError
from services.deployer.model_server.models import ModelRefused
from services.deployer.model_server.models.table import Served, load
from shared.errors import SignatureRefused

log = logging.getLogger(__name__)

MAX_BUNDLE_BYTES: Final = 4 << 30
MAX_DEATHS: Final = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A version that should be served: by `served`, or it cannot be, for `reason`."""

    name: str
    version: str
    digest: str
    served: Served | None
    reason: str = ""


class Repository:
    def __init__(self, folder: Path, trusted: Mapping[str, Ed25519PublicKey], executor: Executor) -> None:
        self._folder = folder
        self._trusted = trusted
        self._executor = executor
        self._lock = asyncio.Lock()
        self._entries: dict[str, dict[str, Entry]] = {}
        self.bundles = folder / "bundles"
        self.bundles.mkdir(parents=True, exist_ok=True)
        self._lock_file = _only_user_of(folder)
        for name, version, digest in _read_state(folder / "state.json"):
            self._put(Entry(name, version, digest, None, "it is being loaded after a restart"))
        for leftover in (*self.bundles.glob(".incoming-*"), *folder.glob(".state-*")):
            leftover.unlink(missing_ok=True)

    def find(self, name: str, version: str | None) -> Served:
        """HttpError: 404 when it is not loaded, 400 when several versions are and none is named, 503 with a reason."""
        versions = self._entries.get(name)
        if not versions:
            raise HttpError(404, f"no model {name[:200]!r} is loaded here")
        if version is None:
            if len(versions) > 1:
                raise HttpError(
                    400, f"{name!r} has several versions loaded ({', '.join(versions)}); name one in the path"
                )
            entry = next(iter(versions.values()))
        elif version in versions:
            entry = versions[version]
        else:
            raise HttpError(404, f"{name!r} has no version {version[:100]!r} loaded, only {', '.join(versions)}")
        if entry.served is None:
            raise HttpError(503, f"{name!r} version {entry.version!r} is not served: {entry.reason}")
        return entry.served

    def versions(self, name: str) -> list[str]:
        return list(self._entries.get(name, ()))

    def entries(self) -> list[Entry]:
        return [entry for versions in self._entries.values() for entry in versions.values()]

    async def load(self, name: str, digest: str) -> Entry:
        """Serve the bundle `digest` (already in `bundles/`) as `name`; again changes nothing. Raises HttpError."""
        async with self._lock:
            entry = await self._load(name, digest, deaths=0)
            present = self._entries.get(name, {}).get(entry.version)
            if present is not None and present.served is not None and present.digest != digest:
                raise HttpError(
                    409, f"{name!r} version {entry.version!r} is served from another bundle; unload it first"
                )
            self._put(entry)
            await self._remember()
            log.info("loaded %s version %s from %s", name, entry.version, digest)
            return entry

    async def unload(self, name: str, version: str | None, delete: bool) -> None:
        """Serve it no more; without a version, none of the model's. Unknown ones are unloaded already."""
        async with self._lock:
            versions = self._entries.get(name, {})
            gone = [versions.pop(v) for v in ([version] if version is not None else list(versions)) if v in versions]
            if not versions:
                self._entries.pop(name, None)
            await self._remember()
            kept = {entry.digest for entry in self.entries()}
            for entry in gone:
                log.info("unloaded %s version %s", name, entry.version)
                if delete and entry.digest not in kept:
                    (self.bundles / file_name(entry.digest)).unlink(missing_ok=True)

    async def reload(self) -> None:
        """Load again what was loaded before; what cannot be is listed with its reason."""
        killer, deaths = _read_loading(self._folder / "loading.json")
        for entry in [entry for entry in self.entries() if entry.served is None]:
            async with self._lock:
                if self._entries.get(entry.name, {}).get(entry.version) is not entry:
                    continue  # somebody loaded or unloaded it while this was running
                died = deaths if entry.digest == killer else 0
                try:
                    if died >= MAX_DEATHS:
                        raise HttpError(422, f"the process died {died} times while loading it; load it again to retry")
                    self._put(await self._load(entry.name, entry.digest, deaths=died))
                except HttpError as error:
                    log.error("%s version %s is not served again: %s", entry.name, entry.version, error)
                    self._put(replace(entry, reason=str(error)))

    def _put(self, entry: Entry) -> None:
        self._entries.setdefault(entry.name, {})[entry.version] = entry

    async def _load(self, name: str, digest: str, deaths: int) -> Entry:
        present = [e for e in self._entries.get(name, {}).values() if e.digest == digest and e.served is not None]
        if present:
            return present[0]
        loop = asyncio.get_running_loop()
        served = await loop.run_in_executor(self._executor, self._load_now, name, digest, deaths)
        return Entry(name, served.manifest.version, digest, served)

    def _load_now(self, name: str, digest: str, deaths: int) -> Served:
        path = self.bundles / file_name(digest)
        loading = self._folder / "loading.json"
        _write_atomically(loading, {"bundle": digest, "deaths": deaths + 1}, durable=False)
        try:
            bundle = open_verified(path, self._trusted)
            if bundle.digest != digest:
                raise BundleRefused(f"{path.name} holds another bundle, {bundle.digest}")
            if bundle.manifest.model_name != name:
                raise HttpError(
                    422, f"the bundle is signed to be served as {bundle.manifest.model_name!r}, not {name!r}"
                )
            return load(bundle)
        except FileNotFoundError as error:
            raise HttpError(
                404, f"there is no bundle {digest} here; PUT it to /v2/repository/bundles/{digest}"
            ) from error
        except SignatureRefused as error:
            raise HttpError(403, f"the bundle is refused: {error}") from error
        except (BundleRefused, ModelRefused) as error:
            raise HttpError(422, f"the bundle is refused: {error}") from error
        except OSError as error:
            raise HttpError(503, f"the bundle cannot be read: {error}") from error
        finally:
            loading.unlink(missing_ok=True)

    async def _remember(self) -> None:
        models = [{"name": e.name, "version": e.version, "bundle": e.digest} for e in self.entries()]
        try:
            await asyncio.to_thread(_write_atomically, self._folder / "state.json", {"format": 1, "models": models})
        except OSError as error:
            raise HttpError(507, f"it would be forgotten at a restart, the state cannot be written: {error}") from error


class Upload:
    """A bundle on its way in: hashed as it comes, kept only when digest, signature and checksums hold.

    Chunks of at most 256 KiB are written on the event loop: 0.2 ms into the page cache, less than a thread's hand-over.
    """

    limit = MAX_BUNDLE_BYTES

    def __init__(self, folder: Path, digest: str) -> None:
        self._sha256 = hashlib.sha256()
        self._digest = digest
        self._folder = folder
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".incoming-")
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "wb")

    def write(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
        except OSError as error:
            raise HttpError(507, f"the bundle cannot be stored: {error}") from error
        self._sha256.update(chunk)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def finish(self, trusted: Mapping[str, Ed25519PublicKey]) -> None:
        """Raises HttpError. Blocks."""
        try:
            if f"sha256:{self._sha256.hexdigest()}" != self._digest:
                raise HttpError(422, "the bytes do not have the digest in the path; send the bundle again")
            self._file.flush()
            os.fsync(self._file.fileno())
            open_verified(self._path, trusted)
            self._path.replace(self._folder / file_name(self._digest))
        except SignatureRefused as error:
            raise HttpError(403, f"the bundle is refused: {error}") from error
        except BundleRefused as error:
            raise HttpError(422, f"the bundle is refused: {error}") from error
        except OSError as error:
            raise HttpError(507, f"the bundle cannot be stored: {error}") from error
        finally:
            self.abort()


def _write_atomically(path: Path, content: dict[str, Any], durable: bool = True) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".state-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(content))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _only_user_of(folder: Path) -> TextIO:
    """The lock on the folder, held until the process ends. Raises SystemExit when another process has it."""
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise SystemExit(
            f"another model server uses {folder}; stop it, or give this one a --repository of its own"
        ) from error
    return lock


def _read_state(path: Path) -> list[tuple[str, str, str]]:
    """Raises SystemExit when the file is there but not ours: serving nothing in silence would be worse."""
    try:
        state = orjson.loads(path.read_bytes())
        if state["format"] != 1:
            raise ValueError("it is of a newer version")
        return [(str(m["name"]), str(m["version"]), str(m["bundle"])) for m in state["models"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} cannot be read ({error}); restore it, or delete it to start empty") from error


def _read_loading(path: Path) -> tuple[str, int]:
    try:
        loading = orjson.loads(path.read_bytes())
        return str(loading["bundle"]), int(loading["deaths"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0
