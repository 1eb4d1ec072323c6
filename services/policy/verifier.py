"""Verifies an exported ledger offline: `python verifier.py ledger.jsonl --trust trust.json`. Needs only Python itself.

The file has one JSON object a line: the entries in order, then `{"head": <DSSE envelope>}`, the signed statement of how
far the chain went when it was exported. An entry's hash is SHA-256 over its fields in the order of FIELDS, each written
as `<length in bytes of UTF-8>:<text>`, an absent one as `-`; `previous` is the hash of the entry before, 64 zeros for
the first. `data_digest` is SHA-256 of the event's data as they travelled.

It names the first bad entry: edited, missing, moved, replaced, cut off. Heads that were kept elsewhere (`--head FILE`)
also show a chain that was rewritten as a whole, even by someone who can sign.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD_TYPE = "application/vnd.mintmark.ledger-head+json"
SIGNER = "policy"
VERSION = "mintmark-ledger-v1"
NOTHING = "sha256:" + "0" * 64
NUMBERS = ("index", "partition", "offset")
FIELDS = (
    "previous",
    "index",
    "workspace",
    "at",
    "id",
    "source",
    "type",
    "key",
    "time",
    "topic",
    "partition",
    "offset",
    "trace_id",
    "correlation_id",
    "causation_id",
    "proof",
    "data_digest",
)
OPTIONAL = ("time", "trace_id", "correlation_id", "causation_id", "proof")


@dataclass(frozen=True)
class Head:
    """The newest entry of a workspace's chain at some time."""

    workspace: str
    index: int
    hash: str


@dataclass(frozen=True)
class Finding:
    """What a walk found. `index` is the first bad entry, None when the chain holds; `entries` is how many were read."""

    entries: int
    index: int | None
    reason: str
    workspace: str | None = None
    hash: str = NOTHING

    @property
    def holds(self) -> bool:
        return self.index is None


class Bad(Exception):
    """An entry that cannot be what was recorded."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def data_fields(data: bytes) -> dict[str, str]:
    """An event's data as an entry carries them: text where they are UTF-8, else base64."""
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def entry_hash(entry: Mapping[str, Any]) -> str:
    """The hash that an entry must have. Raises ValueError with the field that is no text or number."""
    parts = [_part(VERSION)]
    for name in FIELDS:
        value = entry.get(name)
        if name in NUMBERS:
            if type(value) is not int:
                raise ValueError(f"{name} is not a whole number")
            value = str(value)
        if value is None and name in OPTIONAL:
            parts.append(b"-")
        elif isinstance(value, str):
            parts.append(_part(value))
        else:
            raise ValueError(f"{name} is not a text")
    return "sha256:" + hashlib.sha256(b"".join(parts)).hexdigest()


def _part(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(raw), raw)


def data_of(entry: Mapping[str, Any]) -> bytes:
    """The event's data. Raises ValueError when the entry carries none."""
    text, encoded = entry.get("data"), entry.get("data_base64")
    if isinstance(text, str) and encoded is None:
        return text.encode("utf-8", "surrogatepass")
    if isinstance(encoded, str) and text is None:
        return base64.b64decode(encoded, validate=True)
    raise ValueError("it carries no data")


class Walk:
    """Walks a chain entry by entry, in constant memory.

    `witnesses` are heads that were kept elsewhere: at their index the chain must have their hash.
    """

    def __init__(self, witnesses: Iterable[Head] = ()) -> None:
        self.entries = 0
        self._last = NOTHING
        self._workspace: str | None = None
        self._witnesses = {head.index: head for head in witnesses}
        self._vouched = 0
        self._bad: Bad | None = None
        self._unlinked: int | None = None
        """The first entry that does not follow on the one before it; which of the two is bad shows at the end."""

    def step(self, entry: Any) -> None:
        """Take the next entry."""
        if self._bad is None:
            try:
                self._check(entry, self.entries + 1)
            except Bad as bad:
                self._bad = bad
        self.entries += 1

    def _check(self, entry: Any, expected: int) -> None:
        if not isinstance(entry, dict) or type(entry.get("index")) is not int:
            raise Bad(expected, "the line is not an entry")
        index = entry["index"]
        if index > expected:
            raise Bad(expected, f"it is missing or was moved: entry {index} stands in its place")
        if index < expected:
            raise Bad(max(index, 1), "it stands again further down: the chain forks, or entries were moved")
        try:
            if entry_hash(entry) != entry.get("hash"):
                raise Bad(index, "it was edited: its fields do not have its hash")
            if "sha256:" + hashlib.sha256(data_of(entry)).hexdigest() != entry["data_digest"]:
                raise Bad(index, "its data were edited: they do not have their digest")
        except (ValueError, binascii.Error) as error:
            raise Bad(index, f"it was edited: {error}") from None
        self._workspace = self._workspace or entry["workspace"]
        if entry["workspace"] != self._workspace:
            raise Bad(index, f"it belongs to another ledger: workspace {entry['workspace']!r}")
        if entry["previous"] != self._last:
            if self._unlinked is not None or index == 1:
                raise Bad(self._unlinked or index, "it does not follow on the entry before it")
            self._unlinked = index
        self._last = entry["hash"]
        witness = self._witnesses.get(index)
        if witness is not None:
            self._require(witness, "a head that was kept elsewhere")

    def _require(self, head: Head, what: str) -> None:
        """The chain so far must end in the head."""
        if self._workspace is not None and head.workspace != self._workspace:
            raise Bad(1, f"the ledger is of workspace {self._workspace!r}, {what} of {head.workspace!r}")
        if head.hash == self._last:
            if self._unlinked is not None:
                raise Bad(
                    self._unlinked - 1, f"it was replaced: entry {self._unlinked} and {what} vouch for another one"
                )
            self._vouched = head.index
        elif self._unlinked is not None:
            raise Bad(self._unlinked, "it does not follow on the entry before it: the chain forks here")
        else:
            first = f"entries {self._vouched + 1} to {head.index}" if self._vouched + 1 < head.index else "it"
            raise Bad(head.index, f"{what} has another hash: {first} may be rewritten, with all hashes made anew")

    def end(self, head: Head | None) -> Finding:
        """What the walk found, given the head at which the chain must end."""
        try:
            if self._bad is not None:
                raise self._bad
            most = max([*self._witnesses, head.index if head else 0])
            if most > self.entries and self._unlinked is None:
                raise Bad(self.entries + 1, f"it was cut off: {most} entries were signed for, {self.entries} are here")
            if head is None:
                raise Bad(self._unlinked or self.entries + 1, "there is no signed head, so the end may be missing")
            if head.index < self.entries and self._unlinked is None:
                raise Bad(head.index + 1, f"it stands behind the signed head, which is entry {head.index}")
            self._require(head, "the signed head")
        except Bad as bad:
            return Finding(self.entries, bad.index, str(bad), self._workspace, self._last)
        return Finding(self.entries, None, "every entry is as it was recorded", self._workspace, self._last)


def read_head(envelope: Any, keys: Mapping[str, bytes] | None) -> Head:
    """The head in a DSSE envelope, its signature checked when keys are given. Raises ValueError."""
    try:
        kind, text, signatures = envelope["payloadType"], envelope["payload"], envelope["signatures"]
        payload = base64.b64decode(text, validate=True)
        if kind != HEAD_TYPE or not signatures:
            raise ValueError("it is no signed head of a ledger")
        if keys is not None:
            signed = b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)
            for signature in signatures:
                key = keys.get(signature["keyid"])
                if key is None:
                    raise ValueError(f"its signer {signature['keyid']!r} is not trusted")
                if not ed25519_holds(key, signed, base64.b64decode(signature["sig"], validate=True)):
                    raise ValueError(f"the signature of {signature['keyid']!r} does not fit it")
        said = json.loads(payload)
        if said["type"] != "ledger-head" or type(said["index"]) is not int:
            raise ValueError("it is no signed head of a ledger")
        return Head(str(said["workspace"]), said["index"], str(said["hash"]))
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"it is no signed head of a ledger ({error})") from None


def verify(lines: Iterable[bytes], keys: Mapping[str, bytes] | None = None, witnesses: Iterable[Head] = ()) -> Finding:
    """Verify an export, line by line. Without keys the head is compared, but anybody could have signed it."""
    walk, head = Walk(witnesses), None
    for line in lines:
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError:
            document = None
        if head is not None:
            return Finding(walk.entries, walk.entries + 1, "something stands behind the signed head")
        if isinstance(document, dict) and "head" in document:
            try:
                head = read_head(document["head"], keys)
            except ValueError as error:
                return Finding(walk.entries, walk.entries or 1, f"the signed head is not to be believed: {error}")
        else:
            walk.step(document)
    return walk.end(head)


# Ed25519 verification as in RFC 8032, section 5.1.7: slow, short, nothing to install. A point is (X, Y, Z, T).
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]


def ed25519_holds(key: bytes, message: bytes, signature: bytes) -> bool:
    """True when the signature of 64 bytes is by the key of 32 bytes."""
    if len(key) != 32 or len(signature) != 64:
        return False
    point, commitment = _decompress(key), _decompress(signature[:32])
    response = int.from_bytes(signature[32:], "little")
    if point is None or commitment is None or response >= ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    left, right = _times(response, BASE), _add(commitment, _times(challenge, point))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


def _add(a: Point, b: Point) -> Point:
    e1, e2 = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = e2 - e1, d - c, d + c, e2 + e1
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar > 0:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _decompress(raw: bytes) -> Point | None:
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE: Point = _decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little")) or (0, 1, 1, 0)


def keys_of(trust: Path | None, key: str | None) -> dict[str, bytes] | None:
    """The public keys that may sign a head: the one given, or `policy` of a trust file. Raises ValueError."""
    try:
        if key is not None:
            return {SIGNER: base64.b64decode(key, validate=True)}
        if trust is None:
            return None
        return {SIGNER: base64.b64decode(json.loads(trust.read_text())[SIGNER], validate=True)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the public key cannot be read: {error!r}") from None


def witnesses_of(paths: Iterable[Path], keys: Mapping[str, bytes] | None) -> list[Head]:
    """Heads that were kept elsewhere. Raises ValueError."""
    found = []
    for path in paths:
        try:
            document = json.loads(path.read_text())
            found.append(read_head(document.get("head", document), keys))
        except (OSError, AttributeError, ValueError) as error:
            raise ValueError(f"the head in {path} cannot be used: {error}") from None
    return found


def sentence(finding: Finding, checked: bool) -> str:
    """What to tell a person."""
    if not finding.holds:
        return f"entry {finding.index} is bad: {finding.reason}"
    trust = "its head is signed" if checked else "the head's signature was NOT checked: give --trust FILE or --key KEY"
    return f"{finding.entries} entries of workspace {finding.workspace or '-'}: {finding.reason}; {trust}"


@contextmanager
def _lines(name: str) -> Iterator[Iterable[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as file:
            yield file


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the ledger holds, 1 when an entry is bad, 2 when it could not be checked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", help="the export, JSON lines; - reads from standard input")
    parser.add_argument(
        "--trust", type=Path, default=os.environ.get("MINTMARK_TRUST_FILE"), help="trust file with `policy`"
    )
    parser.add_argument("--key", help="the policy service's public key, base64, instead of a trust file")
    parser.add_argument(
        "--head", type=Path, action="append", default=[], help="a signed head kept elsewhere; may be repeated"
    )
    options = parser.parse_args(arguments)
    try:
        keys = keys_of(options.trust, options.key)
        witnesses = witnesses_of(options.head, keys)
        with _lines(options.file) as lines:
            finding = verify(lines, keys, witnesses)
    except (OSError, ValueError) as error:
        print(f"verifier: {error}", file=sys.stderr)
        return 2
    print(f"{options.file}: {sentence(finding, keys is not None)}")
    return 0 if finding.holds else 1


if __name__ == "__main__":
    sys.exit(main())
