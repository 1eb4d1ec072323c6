"""`python -m services.registry.scanning.scanner FILE FORMAT BYTES`: what picklescan and fickling say of it, as JSON.

Pickles that unpack to more than so many bytes are not scanned, and the process ends without an answer.

Runs in a process of its own with a bound on memory and processor time, since what it reads was made by whoever submits.
It reads opcodes; nothing is loaded. What cannot be read to its end is `unreadable`: code may stand behind that place.
"""

from __future__ import annotations

import bz2
import io
import lzma
import resource
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import IO

import orjson

MEMORY_BYTES = 4 * 1024**3
CPU_S = 60
MOST_FINDINGS = 50
PICKLE_NAMES = (".pkl", ".pickle", ".npy")
PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")


def main() -> int:
    """Statements on stdout, one JSON array."""
    path, form, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with open(path, "rb") as file:  # noqa: PTH123 - before anything else is imported
        pickles = list(_pickles(file, form, most))
    said = [_by(scanner, look, pickles) for scanner, look in (("picklescan", _picklescan), ("fickling", _fickling))]
    sys.stdout.buffer.write(orjson.dumps(said))
    return 0


def _pickles(file: IO[bytes], form: str, most: int) -> Iterator[tuple[str, bytes]]:
    """Every pickle in the file, by its name. Raises ValueError for more than is unpacked here."""
    if form in ("torch", "numpy") and zipfile.is_zipfile(file):
        left = most
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as content:
                    head = content.read(2)
                if member.filename.lower().endswith(PICKLE_NAMES) or (head[:1] == b"\x80" and head[1:] in PROTOCOLS):
                    left -= member.file_size
                    if left < 0:
                        raise ValueError("the archive's pickles are too large to be scanned")
                    data = archive.read(member)
                    yield member.filename, _of_numpy(data) if data.startswith(b"\x93NUMPY") else data
        return
    file.seek(0)
    data = file.read(most + 1)
    if len(data) > most:
        raise ValueError("the file is too large to be scanned")
    yield "the file", _of_numpy(data) if form == "numpy" else _unpacked(data, most)


def _of_numpy(data: bytes) -> bytes:
    """What stands behind a numpy header; nothing where the array is of plain numbers."""
    if not data.startswith(b"\x93NUMPY") or b"|O" not in data[:2048]:
        return b""
    wide = data[6] >= 2
    return data[(12 if wide else 10) + int.from_bytes(data[8 : 12 if wide else 10], "little") :]


def _unpacked(data: bytes, most: int) -> bytes:
    """joblib's compression undone, up to a bound."""
    openers: tuple[tuple[bytes, Callable[[], bytes]], ...] = (
        (b"\x78", lambda: zlib.decompressobj().decompress(data, most + 1)),
        (b"\x1f\x8b", lambda: zlib.decompressobj(31).decompress(data, most + 1)),
        (b"BZh", lambda: bz2.BZ2Decompressor().decompress(data, most + 1)),
        (b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor().decompress(data, most + 1)),
        (b"\x5d\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data, most + 1)),
    )
    for magic, unpack in openers:
        if data.startswith(magic):
            plain = unpack()
            if len(plain) > most:
                raise ValueError("unpacked, the file is too large to be scanned")
            return plain
    return data


def _by(
    scanner: str, look: Callable[[str, bytes], tuple[str, list[str]]], pickles: list[tuple[str, bytes]]
) -> dict[str, object]:
    order = ("clean", "suspicious", "dangerous", "unreadable")
    result, findings = "clean", []
    for name, data in pickles:
        if not data:
            continue
        try:
            found, said = look(name, data)
        except Exception as error:  # scanners raise many kinds on what is made to break them
            found, said = "unreadable", [f"{name}: {type(error).__name__}"]
        result = max(result, found, key=order.index)
        findings += said
    return {
        "scanner": scanner,
        "version": version(scanner),
        "result": result,
        "findings": [one[:300] for one in dict.fromkeys(findings)][:MOST_FINDINGS],
    }


def _picklescan(name: str, data: bytes) -> tuple[str, list[str]]:
    from picklescan import scanner  # type: ignore[import-untyped]

    found = scanner.scan_pickle_bytes(io.BytesIO(data), name)
    said = [f"{one.safety.value}: {one.module}.{one.name}" for one in found.globals if one.safety.value != "innocuous"]
    if found.scan_err:
        return "unreadable", [*said, f"{name} cannot be read to its end"]
    if found.issues_count:
        return "dangerous", sorted(said)
    return ("suspicious" if said else "clean"), sorted(said)


def _fickling(name: str, data: bytes) -> tuple[str, list[str]]:
    from fickling.analysis import Severity, check_safety  # type: ignore[import-untyped]
    from fickling.fickle import StackedPickle  # type: ignore[import-untyped]

    results = [check_safety(one) for one in StackedPickle.load(io.BytesIO(data))]
    worst = max((one.severity for one in results), key=lambda one: one.value[0], default=Severity.LIKELY_SAFE)
    said = [line for one in results for line in one.to_string().splitlines() if line.strip()]
    if worst.value[0] >= Severity.LIKELY_OVERTLY_MALICIOUS.value[0]:
        return "dangerous", said
    return ("clean" if worst == Severity.LIKELY_SAFE else "suspicious"), said


if __name__ == "__main__":
    sys.exit(main())
