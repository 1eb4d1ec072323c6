"""Providers' keys: sealed by envelope encryption as soon as they are set, opened in memory only, never shown again.

A key is encrypted with a data key of its own (AES-256-GCM), and the data key is wrapped by a master key, which is one
of a file or one in a KMS. Rotating a master key wraps data keys anew and touches no ciphertext. What a sealed key
belongs to is authenticated with it, so that one cannot be moved to another provider or workspace.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.router.errors import SealBroken
from shared.errors import Invalid

KEY_BYTES = 32
NONCE_BYTES = 12
HIDDEN = b"[provider key]"
MIN_SCRUBBED_CHARACTERS = 8  # a shorter "key" is a placeholder such as "none", which texts may well contain


class Secret:
    """A value that says itself only to whoever calls `reveal`: not to print, log, JSON, pickle or an exception."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Raises Invalid for a value that could not stand in a header."""
        if not value or not value.isascii() or not value.isprintable():
            raise Invalid("A provider's key is printable ASCII without line ends; copy it again.")
        self._value = value

    def reveal(self) -> str:
        return self._value

    def scrub(self, data: bytes) -> bytes:
        """`data` without the secret, for what an upstream says back and a log or a row would keep."""
        found = self._value.encode()
        return data.replace(found, HIDDEN) if len(found) >= MIN_SCRUBBED_CHARACTERS and found in data else data

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret does not leave its process")


@dataclass(frozen=True, slots=True)
class Belonging:
    """What a key is of. It is authenticated and not encrypted."""

    workspace: str
    provider: str

    def context(self) -> dict[str, str]:
        return {"mintmark:workspace": self.workspace, "mintmark:provider": self.provider}

    def to_bytes(self) -> bytes:
        return orjson.dumps(self.context(), option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A key as it is stored. All but `master` is base64."""

    master: str
    """Which master key wrapped the data key: a version in the file, or the ARN of a KMS key."""
    wrapped: str
    nonce: str
    ciphertext: str

    def to_json(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @staticmethod
    def from_json(text: str) -> Sealed:
        """Raises SealBroken."""
        try:
            return Sealed(**orjson.loads(text))
        except (orjson.JSONDecodeError, TypeError):
            raise SealBroken() from None


class MasterKey(Protocol):
    """Wraps data keys. Both methods block; whoever opens many keys does so in a thread."""

    def wrap(self, data_key: bytes, of: Belonging) -> tuple[str, bytes]:
        """Which master key it was, and the wrapped data key. Raises SealBroken."""
        ...

    def unwrap(self, master: str, wrapped: bytes, of: Belonging) -> bytes:
        """Raises SealBroken."""
        ...

    def is_current(self, master: str) -> bool: ...


class FileMasterKey(MasterKey):
    """Master keys in a file, read anew when it changes: `{"current": "2", "keys": {"1": "<base64 of 32 bytes>", …}}`.

    To rotate: add a key, make it `current`, call `rewrap` on what is stored, and then take the old one out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._current = ""
        self._keys: Mapping[str, bytes] = {}

    def wrap(self, data_key: bytes, of: Belonging) -> tuple[str, bytes]:
        current, keys = self._read()
        nonce = os.urandom(NONCE_BYTES)
        return current, nonce + AESGCM(keys[current]).encrypt(nonce, data_key, of.to_bytes())

    def unwrap(self, master: str, wrapped: bytes, of: Belonging) -> bytes:
        _, keys = self._read()
        key = keys.get(master)
        if key is None:
            raise SealBroken(f"The master key {master!r} is not in the file any more; put it back or set the key anew.")
        try:
            return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], of.to_bytes())
        except (InvalidTag, ValueError):
            raise SealBroken() from None

    def is_current(self, master: str) -> bool:
        return master == self._read()[0]

    def _read(self) -> tuple[str, Mapping[str, bytes]]:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            with self._lock:
                if stamp != self._stamp:
                    self._current, self._keys = _master_keys(self._path.read_bytes())
                    self._stamp = stamp
                return self._current, self._keys
        except OSError as error:
            raise SealBroken(f"The master key file {self._path} cannot be read: {error.strerror}.") from None


def master_key_of(file: Path | None, kms: str) -> MasterKey | None:
    """The one that the settings name; None without any. Raises Invalid when they name two."""
    if file is not None and kms:
        raise Invalid("Name one master key: MINTMARK_ROUTER_MASTER_KEY_FILE or MINTMARK_ROUTER_MASTER_KEY_KMS.")
    if kms:
        import boto3  # half a second that an installation without KMS need not wait

        from services.router.gateway.kms import KmsMasterKey

        return KmsMasterKey(boto3.client("kms"), kms)
    return FileMasterKey(file) if file is not None else None


class Sealer:
    """Seals keys when they are set, opens them where they are used."""

    def __init__(self, master: MasterKey) -> None:
        self._master = master

    def seal(self, secret: Secret, of: Belonging) -> Sealed:
        """Raises SealBroken when the master key cannot be had."""
        data_key, nonce = AESGCM.generate_key(KEY_BYTES * 8), os.urandom(NONCE_BYTES)
        ciphertext = AESGCM(data_key).encrypt(nonce, secret.reveal().encode(), of.to_bytes())
        master, wrapped = self._master.wrap(data_key, of)
        return Sealed(master, _text(wrapped), _text(nonce), _text(ciphertext))

    def open(self, sealed: Sealed, of: Belonging) -> Secret:
        """Raises SealBroken for a key that was changed, is another's, or whose master key is gone."""
        try:
            data_key = self._master.unwrap(sealed.master, _bytes(sealed.wrapped), of)
            plain = AESGCM(data_key).decrypt(_bytes(sealed.nonce), _bytes(sealed.ciphertext), of.to_bytes())
            return Secret(plain.decode("ascii"))
        except (InvalidTag, ValueError, binascii.Error):
            raise SealBroken() from None

    def rewrap(self, sealed: Sealed, of: Belonging) -> Sealed:
        """The same key under the present master key; itself if it is under that already. Raises SealBroken."""
        if self._master.is_current(sealed.master):
            return sealed
        try:
            data_key = self._master.unwrap(sealed.master, _bytes(sealed.wrapped), of)
        except binascii.Error:
            raise SealBroken() from None
        master, wrapped = self._master.wrap(data_key, of)
        return Sealed(master, _text(wrapped), sealed.nonce, sealed.ciphertext)


class KeyRing:
    """The opened keys of a gateway, swapped whole: a request in flight keeps the key that it began with.

    A provider's key is opened once for each sealed form of it, and KMS is not asked again while nothing changes.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._opened: dict[Belonging, tuple[Sealed, Secret]] = {}

    def take(self, sealed: Mapping[Belonging, Sealed]) -> dict[Belonging, SealBroken]:
        """Make these the keys. Returns those that cannot be opened, whose providers keep the key they had, if any.

        Blocks where a KMS has to be asked.
        """
        opened: dict[Belonging, tuple[Sealed, Secret]] = {}
        broken: dict[Belonging, SealBroken] = {}
        for of, found in sealed.items():
            known = self._opened.get(of)
            if known is not None and known[0] == found:
                opened[of] = known
                continue
            try:
                opened[of] = (found, self._sealer.open(found, of))
            except SealBroken as error:
                broken[of] = error
                if known is not None:
                    opened[of] = known
        self._opened = opened
        return broken

    def secret_of(self, of: Belonging) -> Secret:
        """Raises SealBroken when there is none."""
        found = self._opened.get(of)
        if found is None:
            raise SealBroken(f"No key is set for the provider {of.provider!r}, or it cannot be opened; set it anew.")
        return found[1]

    def __repr__(self) -> str:
        return f"KeyRing({len(self._opened)} keys)"


def _master_keys(content: bytes) -> tuple[str, Mapping[str, bytes]]:
    try:
        value = orjson.loads(content)
        current, keys = str(value["current"]), {str(name): _bytes(key) for name, key in value["keys"].items()}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, binascii.Error):
        raise SealBroken('The master key file must be {"current": name, "keys": {name: base64 of 32 bytes}}.') from None
    if current not in keys or any(len(key) != KEY_BYTES for key in keys.values()):
        raise SealBroken("The master key file must have its current key, and each key must be 32 bytes.")
    return current, keys


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
