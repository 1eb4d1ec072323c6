"""Apache Kafka's jars: exactly those of `kafka/jgo.lock.toml`, downloaded once, and verified at every start."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy.local.errors import LocalError, explaining_os_errors
from deploy.local.folder import check_free_space
from deploy.local.progress import Progress, Silent

LOCK_FILE = Path(__file__).parent / "kafka" / "jgo.lock.toml"
DOWNLOADS_AT_ONCE = 4
ATTEMPTS = 3


@dataclass(frozen=True)
class LockedJar:
    """One jar of the lock: its Maven coordinates and the SHA-256 it must have (hex)."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True)
class Jars:
    """A complete, verified folder of jars."""

    folder: Path

    @property
    def class_path(self) -> str:
        """In the order of the lock, never a wildcard: a Java AOT cache is only valid for the very same class path."""
        return os.pathsep.join(str(self.folder / jar.file_name) for jar in locked_jars())


@cache
def locked_jars() -> tuple[LockedJar, ...]:
    """The jars of the committed lock file."""
    entries = tomllib.loads(LOCK_FILE.read_text())["dependencies"]
    return tuple(LockedJar(one["groupId"], one["artifactId"], one["version"], one["sha256"]) for one in entries)


@cache
def lock_digest() -> str:
    """Twelve hex digits that name this set of jars; another lock gets another folder."""
    together = "\n".join(f"{jar.file_name} {jar.sha256}" for jar in locked_jars())
    return hashlib.sha256(together.encode()).hexdigest()[:12]


def kafka_cache(cache_root: Path) -> Path:
    """Where everything that belongs to this set of jars is kept: `jars/`, `partial/`, the AOT cache."""
    return cache_root / f"kafka-{lock_digest()}"


def missing_jars(cache_root: Path) -> list[LockedJar]:
    """The jars that are absent or whose bytes are not those of the lock."""
    folder = kafka_cache(cache_root) / "jars"
    return [jar for jar in locked_jars() if not _has_digest(folder / jar.file_name, jar.sha256)]


def ensure_jars(cache_root: Path, progress: Progress | None = None) -> Jars:
    """Return the verified jars, downloading what is missing; what an interrupted download left behind is kept if whole.

    Raises LocalError when the network, the disk or a checksum stands in the way.
    """
    jars = Jars(kafka_cache(cache_root) / "jars")
    if not missing_jars(cache_root):
        return jars
    with explaining_os_errors(cache_root), _one_at_a_time(cache_root):
        if missing := missing_jars(cache_root):
            check_free_space(cache_root)
            _download(missing, kafka_cache(cache_root), progress or Silent())
            shutil.rmtree(kafka_cache(cache_root) / "partial", ignore_errors=True)
    return jars


@contextlib.contextmanager
def _one_at_a_time(cache_root: Path) -> Iterator[None]:
    """Let test workers and users of one cache wait for one download instead of making several."""
    kafka_cache(cache_root).mkdir(parents=True, exist_ok=True)
    with (kafka_cache(cache_root) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(missing: list[LockedJar], target: Path, progress: Progress) -> None:
    (target / "jars").mkdir(exist_ok=True)
    with progress.step(f"Downloading Apache Kafka ({len(missing)} jars)") as report:
        pool = ThreadPoolExecutor(DOWNLOADS_AT_ONCE)
        try:
            fetches = [pool.submit(_fetch, jar, target) for jar in missing]
            for done, fetch in enumerate(as_completed(fetches), start=1):
                fetch.result()
                report(done, len(missing))
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch(jar: LockedJar, target: Path) -> None:
    """Download one jar beside its place, check it, then move it there: a half file never has the final name."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    # The user's own jgo settings may name a mirror; a repository called `central` replaces Maven Central.
    settings = GlobalSettings.load()
    repositories = {"central": MAVEN_CENTRAL_URL, **settings.repositories}
    context = MavenContext(repo_cache=target / "partial", remote_repos=repositories, timeout=30)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    problem: Exception | str = ""
    for _ in range(ATTEMPTS):
        try:
            arrived = Path(artifact.resolve())
        except (OSError, RuntimeError) as error:
            # requests' errors are OSErrors too; a full disk must not be mistaken for a bad network.
            if getattr(error, "errno", None) is not None:
                raise
            problem = error
            if artifact.cached_path is not None:
                artifact.cached_path.unlink(missing_ok=True)
            continue
        if _has_digest(arrived, jar.sha256):
            arrived.replace(target / "jars" / jar.file_name)
            return
        arrived.unlink()
        problem = "its checksum is not the locked one"
    raise LocalError(
        f"{jar.file_name} could not be downloaded ({_short(problem)}): check the network, or name a Maven mirror in "
        "~/.config/jgo.conf ([repositories], central = …), then run this again; jars that have arrived are kept."
    )


def _short(problem: Exception | str) -> str:
    return " ".join(str(problem).split())[:160]


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False
