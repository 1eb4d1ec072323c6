"""A bundle: one signed file that holds all a target needs to serve one version of a model.

It is an uncompressed tar with exactly one possible form: the signed manifest first, then the files it names, sorted, in
headers without times, owners or modes of their own. The same contents therefore give the same bytes and the same
digest, and a reader needs no list of dangerous tars: whatever is not byte for byte the form below is refused,
be it a symlink, a traversal name, an extra or missing file, or bytes behind the end. Nothing is ever unpacked to disk.
"""

import contextlib
import errno
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal, Self

import orjson
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from shared.errors import IntegrityFailed, Invalid, SignatureRefused
from shared.identity.dsse import Envelope, sign, verify

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:mintmark:bundle:v1"
MANIFEST_NAME: Final = "manifest.dsse.json"
MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_FILES: Final = 64
_BLOCK: Final = tarfile.BLOCKSIZE
_END: Final = bytes(2 * _BLOCK)

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class BundleRefused(IntegrityFailed):
    """The bundle is not what its signed manifest says."""

    code = "bundle-refused"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Feature(_Frozen):
    """One input column, in the order in which the model takes it."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    datatype: Literal["FP64", "FP32", "INT64"] = "FP64"
    nullable: bool = False
    """A missing value is allowed and reaches the model as NaN."""


class Manifest(_Frozen):
    """What a bundle says about itself; every word of it is signed."""

    asset: Annotated[str, StringConstraints(pattern=r"^mm:model/.+", max_length=300)]
    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]
    asset_digest: Digest
    workspace: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    model_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
    """The name it is served under. The deployer chooses it, so that two workspaces never meet under one name."""
    format: Literal["lightgbm", "skops", "onnx"]
    model_file: FileName
    task: Literal["binary", "multiclass", "regression"]
    labels: tuple[int, ...] | tuple[str, ...] = ()
    """The class that each index stands for; for binary tasks (negative, positive). Empty for regression."""
    features: Annotated[tuple[Feature, ...], Field(min_length=1, max_length=10_000)]
    background: tuple[float | None, ...] | None = None
    """The reference row that SHAP values compare with, where the model has none of its own; null is missing."""
    licence: str | None = None
    evidence: Mapping[str, str] = Field(default_factory=dict)
    """What allowed this bundle to be made: ids and digests of the gate's and the approvers' statements."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("two features have the same name")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two labels are the same")
        wanted = {"binary": len(self.labels) == 2, "multiclass": len(self.labels) >= 2, "regression": not self.labels}
        if not wanted[self.task]:
            raise ValueError(f"{len(self.labels)} labels do not fit the task {self.task!r}")
        if self.background is not None and len(self.background) != len(self.features):
            raise ValueError("the background row needs one value a feature")
        return self


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A bundle whose signature and checksums held when it was opened."""

    path: Path
    digest: str
    size: int
    manifest: Manifest
    members: Mapping[str, _Member]

    def read(self, name: str) -> bytes:
        """The bytes of one file, checked once more: the path may lead to other bytes by now. Raises BundleRefused."""
        member = self.members[name]
        with _opened(self.path) as file:
            file.seek(member.offset)
            data = file.read(member.size)
        if hashlib.sha256(data).hexdigest() != member.sha256:
            raise BundleRefused(f"{name!r} in {self.path.name} changed after it was verified; fetch the bundle anew")
        return data


def build(
    folder: Path, manifest: Manifest, files: Mapping[str, Path], key: Ed25519PrivateKey, keyid: str = "deployer"
) -> Bundle:
    """Write `<folder>/<sha256>.tar` from `files` (name in the bundle to where it is now) and open it verified.

    The same manifest, files and key give the same bytes. Raises Invalid when the files do not fit the manifest. Blocks.
    """
    if manifest.model_file not in files or len(files) > MAX_FILES:
        raise Invalid(f"a bundle needs its model file {manifest.model_file!r} and at most {MAX_FILES} files")
    for name in files:
        _check_name(name)
    envelope = sign(rfc8785.dumps(_statement(manifest, files)), PAYLOAD_TYPE, key, keyid).to_json()
    if len(envelope) > MAX_MANIFEST_BYTES:
        raise Invalid(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes; shorten features or evidence")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".building-")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(_header(MANIFEST_NAME, len(envelope)) + envelope + _padding(len(envelope)))
            for name in sorted(files):
                size = files[name].stat().st_size
                out.write(_header(name, size))
                with files[name].open("rb") as source:
                    while chunk := source.read(1 << 20):
                        out.write(chunk)
                out.write(_padding(size))
            out.write(_END)
            out.flush()
            os.fsync(out.fileno())
        built = open_verified(Path(temporary), {keyid: key.public_key()})
        path = folder / file_name(built.digest)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    return Bundle(path, built.digest, built.size, built.manifest, built.members)


def open_verified(path: Path, trusted: Mapping[str, Ed25519PublicKey]) -> Bundle:
    """The bundle at `path`, after its signature by a key in `trusted` and the checksum of every byte held.

    Raises SignatureRefused or BundleRefused, with what is wrong, and OSError when it cannot be read. Blocks.
    """
    with _opened(path) as file:
        reader = _Reader(file)
        name, size = reader.header()
        if name != MANIFEST_NAME or size > MAX_MANIFEST_BYTES:
            raise BundleRefused(f"{path.name} is not a bundle: it does not begin with a {MANIFEST_NAME}")
        manifest, digests = _read_statement(reader.body(size), trusted)
        members: dict[str, _Member] = {}
        for expected in sorted(digests):
            name, size = reader.header()
            if name != expected:
                raise BundleRefused(f"{path.name} holds {name!r} where its manifest says {expected!r}")
            members[name] = _Member(reader.at, size, digests[name])
            if reader.hash_body(size) != digests[name]:
                raise BundleRefused(f"{name!r} in {path.name} is not the file that was signed: its checksum differs")
        reader.end()
        return Bundle(path, f"sha256:{reader.sha256.hexdigest()}", reader.at, manifest, members)


def file_name(digest: str) -> str:
    """The file name of the bundle with this digest (`sha256:…`) in a folder of bundles."""
    return digest.removeprefix("sha256:") + ".tar"


def _statement(manifest: Manifest, files: Mapping[str, Path]) -> dict[str, Any]:
    subjects = []
    for name in sorted(files):
        with files[name].open("rb") as source:
            subjects.append({"name": name, "digest": {"sha256": hashlib.file_digest(source, "sha256").hexdigest()}})
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": manifest.model_dump(mode="json"),
    }


def _read_statement(envelope: bytes, trusted: Mapping[str, Ed25519PublicKey]) -> tuple[Manifest, dict[str, str]]:
    payload = verify(Envelope.from_json(envelope), trusted, PAYLOAD_TYPE)
    try:
        statement = orjson.loads(payload)
        kinds = statement["_type"], statement["predicateType"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        kinds = None
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise SignatureRefused("what was signed is not the manifest of a bundle")
    try:
        manifest = Manifest.model_validate_json(orjson.dumps(statement["predicate"]), strict=True)
        digests = {subject["name"]: str(subject["digest"]["sha256"]) for subject in statement["subject"]}
    except (ValidationError, KeyError, TypeError) as error:
        raise BundleRefused(f"the manifest is signed but of another form than this version reads: {error}") from error
    if manifest.model_file not in digests or len(digests) != len(statement["subject"]) or len(digests) > MAX_FILES:
        raise BundleRefused("the manifest must name its model file, and each file once")
    return manifest, digests


class _Reader:
    """Reads the one canonical form of tar, hashing as it goes; anything else is a BundleRefused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.at = 0

    def header(self) -> tuple[str, int]:
        block = self._exactly(_BLOCK)
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            _check_name(found.name)
            canonical = _header(found.name, found.size) == block
        except (tarfile.HeaderError, ValueError, Invalid):
            canonical = False
        if not canonical:
            raise BundleRefused(
                "the bundle holds an entry that is not a plain file in the one form allowed, or ends early"
            )
        return found.name, found.size

    def body(self, size: int) -> bytes:
        data = self._exactly(size)
        self._zeros(len(_padding(size)))
        return data

    def hash_body(self, size: int) -> str:
        digest = hashlib.sha256()
        left = size
        while left:
            chunk = self._exactly(min(left, 1 << 20))
            digest.update(chunk)
            left -= len(chunk)
        self._zeros(len(_padding(size)))
        return digest.hexdigest()

    def end(self) -> None:
        self._zeros(len(_END))
        if self._file.read(1):
            raise BundleRefused("the bundle goes on behind its end: it holds more than its manifest names")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise BundleRefused("the bundle ends early: it holds less than its manifest names")
        self.sha256.update(data)
        self.at += size
        return data

    def _zeros(self, size: int) -> None:
        if self._exactly(size).strip(b"\0"):
            raise BundleRefused("the bundle holds something that its manifest does not name")


def _opened(path: Path) -> BinaryIO:
    """A regular file, never through a symlink, and never a pipe or device, which would block for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleRefused(f"{path.name} is a symlink; name the bundle itself") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleRefused(f"{path.name} is not a plain file")
    return os.fdopen(descriptor, "rb")


def _check_name(name: str) -> None:
    if len(name) > 80 or not name.isascii() or not name[:1].isalnum() or set(name) - _NAME_CHARACTERS:
        raise Invalid(f"{name[:100]!r} cannot name a file in a bundle: use letters, digits, dot, dash and underscore")


_NAME_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
