"""Looks at bytes before they become an asset: are they what they are said to be, and is there a pickle in them?

A model is taken only when its bytes show the format that is claimed; so a pickle cannot pass under another name.
What is recognised as a pickle (plain, compressed by joblib, in a zip as torch and skops make it, or as a numpy array
of objects) is refused by that name, since that is what its author must change. What says itself that it is one is taken
to the scanners, and held back. Archives that write outside of their folder, and bombs, are refused.
"""

from __future__ import annotations

import asyncio
import bz2
import codecs
import gzip
import io
import lzma
import pickletools
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import aclosing
from typing import IO

from services.registry.errors import ArchiveRefused, FormatMismatch, PickleRefused
from services.registry.scanning.statement import PICKLE_FORMATS
from shared.artefacts import ArtefactStore
from shared.errors import MintmarkError

HEAD_BYTES = 64 * 1024
SPOOL_BYTES = 8 * 1024 * 1024
MOST_MEMBERS = 10_000
MOST_ZIP_BYTES = 2 * 1024**3
MOST_UNPACKED = 16 * 1024**3
SMALL_UNPACKED = 100 * 1024**2
MOST_RATIO = 200  # weights pack to a third, text to a tenth; a bomb to a thousandth
PICKLE_NAMES = (".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth")
TEXTS = ("json", "jsonl", "yaml", "text", "jinja2")
RUNNING = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD"}


async def check(store: ArtefactStore, digest: str, size: int, declared: str) -> None:
    """Return when the stored bytes are in the declared format. Raises FormatMismatch or PickleRefused."""
    head = await _head(store, digest)
    if declared in PICKLE_FORMATS:
        await _check_pickle(store, digest, size, declared, head)
        return
    if is_pickle(head) or holds_pickle_compressed(head):
        raise PickleRefused()
    if declared not in ("skops", "zip", "tar") and not head.startswith(b"PK\x03\x04"):
        if not await asyncio.to_thread(SHOWS[declared], head):
            if is_old_pickle(head):
                raise PickleRefused()
            raise FormatMismatch(f"the bytes are not {declared}, which the submission says they are")
        return
    await _spooled(store, digest, size, check_tar if declared == "tar" else lambda file: check_zip(file, declared))


async def _spooled(store: ArtefactStore, digest: str, size: int, look: Callable[[IO[bytes]], None]) -> None:
    """Look at an archive as a file."""
    if size > MOST_ZIP_BYTES:
        raise FormatMismatch(
            f"an archive of {size} bytes is too large to be looked through; {MOST_ZIP_BYTES} is the most"
        )
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
        async for chunk in store.read(digest):
            await asyncio.to_thread(spool.write, chunk)
        await asyncio.to_thread(look, spool)


async def _check_pickle(store: ArtefactStore, digest: str, size: int, declared: str, head: bytes) -> None:
    """What says that it is a pickle is one: of that kind, and in a sound archive where it is one."""
    if declared in ("torch", "numpy") and head.startswith(b"PK\x03\x04"):
        await _spooled(store, digest, size, _sound_zip)
        return
    shows = {
        "pickle": is_pickle(head) or is_old_pickle(head),
        "joblib": is_pickle(head) or holds_pickle_compressed(head),
        "torch": is_pickle(head),
        "numpy": head.startswith(b"\x93NUMPY"),
    }
    if not shows[declared]:
        raise FormatMismatch(f"the bytes are not {declared}, which the submission says they are")


def _sound_zip(file: IO[bytes]) -> None:
    try:
        _bounded_directory(file)
        with zipfile.ZipFile(file) as archive:
            _refuse_traps(archive)
    except MintmarkError:
        raise
    except Exception as error:  # zipfile raises many kinds on what is broken, encrypted or made to break it
        raise FormatMismatch(f"the zip archive cannot be read: {type(error).__name__}") from error


async def _head(store: ArtefactStore, digest: str) -> bytes:
    head = b""
    async with aclosing(store.read(digest)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            head += chunk
            if len(head) >= HEAD_BYTES:
                break
    return head[:HEAD_BYTES]


def is_pickle(head: bytes) -> bool:
    """A pickle of protocol 2 or later, or a numpy array of objects, which is one inside."""
    if len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    return head.startswith(b"\x93NUMPY") and b"'|O" in head[:512]


def is_old_pickle(head: bytes) -> bool:
    """A pickle of protocol 0 or 1: text that reads as opcodes to its end and runs something."""
    ran = False
    try:
        for opcode, _, _ in pickletools.genops(io.BytesIO(head)):
            ran = ran or opcode.name in RUNNING
    except Exception:  # pickletools raises many kinds on what is no pickle
        return ran and b"\n" in head and len(head) >= HEAD_BYTES
    return ran


def holds_pickle_compressed(head: bytes) -> bool:
    """What joblib's `compress=` makes: the first bytes of the stream are a pickle's."""
    openers: tuple[tuple[bytes, Callable[[], bytes]], ...] = (
        (b"\x78", lambda: zlib.decompressobj().decompress(head, 16)),
        (b"\x1f\x8b", lambda: gzip.GzipFile(fileobj=io.BytesIO(head)).read(16)),
        (b"BZh", lambda: bz2.BZ2Decompressor().decompress(head, 16)),
        (b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor().decompress(head, 16)),
        (b"\x5d\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(head, 16)),
    )
    for magic, begin in openers:
        if head.startswith(magic):
            try:
                return is_pickle(begin())
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
                return False
    return False


def check_zip(file: IO[bytes], declared: str) -> None:
    """A zip archive without a pickle in it, and with what skops puts into one where that is declared."""
    try:
        _bounded_directory(file)
        with zipfile.ZipFile(file) as archive:
            _refuse_traps(archive)
            for member in archive.infolist():
                if member.filename.lower().endswith(PICKLE_NAMES) or _member_is_pickle(archive, member):
                    raise PickleRefused(
                        f"the archive holds a pickle ({member.filename[:200]}), which runs code when it is loaded"
                    )
            names = set(archive.namelist())
    except MintmarkError:
        raise
    except Exception as error:  # zipfile raises many kinds on what is broken, encrypted or made to break it
        raise FormatMismatch(f"the zip archive cannot be read: {type(error).__name__}") from error
    if declared not in ("skops", "zip") or (declared == "skops" and "schema.json" not in names):
        raise FormatMismatch(f"the bytes are a zip archive, but not {declared}")


def _refuse_traps(archive: zipfile.ZipFile) -> None:
    """Names that lead out of the folder that it is unpacked to, links, and bombs. Raises ArchiveRefused."""
    total, packed = 0, 0
    for member in archive.infolist():
        _refuse_name(member.orig_filename)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ArchiveRefused(f"the archive holds a link ({member.filename[:200]})")
        total, packed = total + member.file_size, packed + member.compress_size
    if total > MOST_UNPACKED or (total > SMALL_UNPACKED and total > packed * MOST_RATIO):
        raise ArchiveRefused(f"the archive unpacks to {total} bytes from {packed}")


def _refuse_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0] or "\x00" in name:
        raise ArchiveRefused(f"the archive holds {name[:200]!r}, which would be written outside of its folder")


def check_tar(file: IO[bytes]) -> None:
    """A tar archive whose names and links stay in its folder, with no pickle in it by name."""
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MOST_MEMBERS:
                    raise FormatMismatch(f"the tar archive has more than {MOST_MEMBERS} members")
                _refuse_name(member.name.removeprefix("./") or ".")
                if not (member.isfile() or member.isdir()):
                    raise ArchiveRefused(f"the archive holds a link or a device ({member.name[:200]})")
                if member.name.lower().endswith(PICKLE_NAMES):
                    raise PickleRefused(
                        f"the archive holds a pickle ({member.name[:200]}), which runs code when it is loaded"
                    )
    except MintmarkError:
        raise
    except Exception as error:  # tarfile raises many kinds on what is broken or made to break it
        raise FormatMismatch("the bytes are not tar, which the submission says they are") from error


def _bounded_directory(file: IO[bytes]) -> None:
    """Refuse an archive with so many members that reading their list would be an attack."""
    file.seek(0, io.SEEK_END)
    size = file.tell()
    file.seek(max(0, size - 65_557))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise FormatMismatch("the zip archive has no end; it was cut off")
    if int.from_bytes(tail[end + 10 : end + 12], "little") > MOST_MEMBERS or tail[max(0, end - 20) : end].startswith(
        b"PK\x06\x07"
    ):
        raise FormatMismatch(f"the zip archive has more than {MOST_MEMBERS} members")
    file.seek(0)


def _member_is_pickle(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if member.is_dir():
        return False
    with archive.open(member) as content:
        head = content.read(512)
    return is_pickle(head) or holds_pickle_compressed(head)


def _is_lightgbm(head: bytes) -> bool:
    return head.startswith((b"tree\n", b"tree\r\n"))


def _is_onnx(head: bytes) -> bool:
    """ModelProto: its first field is ir_version (varint), the next one another of its fields."""
    if len(head) < 4 or head[0] != 0x08 or not 1 <= head[1] <= 100:
        return False
    return head[2] >> 3 in range(2, 32) and head[2] & 7 in (0, 2)


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and int.from_bytes(head[:8], "little") <= 100 * 1024**2 and head[8:9] == b"{"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return "\x00" not in text


SHOWS: dict[str, Callable[[bytes], bool]] = {
    "lightgbm": _is_lightgbm,
    "onnx": _is_onnx,
    "safetensors": _is_safetensors,
    "parquet": lambda head: head.startswith(b"PAR1"),
    "tar": lambda head: head[257:262] == b"ustar",
    "csv": lambda head: b"\x00" not in head,
    **dict.fromkeys(TEXTS, _is_text),
}
