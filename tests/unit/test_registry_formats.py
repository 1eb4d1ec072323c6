"""What may become an artefact, by its bytes: a pickle is found under any name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from services.registry import formats
from services.registry.errors import ArchiveRefused, FormatMismatch, PickleRefused, ScanFailed
from services.registry.scanning import Scan, process
from shared.artefacts.folder import FolderStore
from shared.ids import sha256


class Runs:
    """What an attacker pickles."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run",))


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


def an_object_array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return out.getvalue()


def a_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


PICKLES = {
    **{f"protocol {number}": pickle.dumps(Runs(), number) for number in range(6)},
    "plain data": pickle.dumps([1.0] * 100),
    "joblib, zlib": zlib.compress(pickle.dumps(Runs())),
    "joblib, gzip": gzip.compress(pickle.dumps(Runs())),
    "joblib, bz2": bz2.compress(pickle.dumps(Runs())),
    "joblib, xz": lzma.compress(pickle.dumps(Runs())),
    "joblib, lzma": lzma.compress(pickle.dumps(Runs()), lzma.FORMAT_ALONE),
    "torch, zip": zipped(archive_data__pkl=pickle.dumps(Runs()), version=b"3"),
    "torch, old": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + pickle.dumps(Runs(), 2),
    "skops with a pickle": zipped(schema__json=b"{}", weights=pickle.dumps(Runs())),
    "skops with a pickle by name": zipped(schema__json=b"{}", model__joblib=b"x"),
    "skops with an array of objects": zipped(schema__json=b"{}", array__npy=an_object_array()),
    "numpy array of objects": an_object_array(),
}
GOOD = {
    "lightgbm": b"tree\nversion=v4\n",
    "skops": zipped(schema__json=b"{}", array__npy=b"\x93NUMPY\x01\x00"),
    "onnx": b"\x08\x0a\x12\x07skl2onnx",
    "safetensors": (20).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}',
    "parquet": b"PAR1....PAR1",
    "csv": b"a,b\n1,2\n",
    "json": '{"ü": 1}'.encode(),
    "text": "Grüße".encode() * 20_000,  # a character is cut in two at the end of what is looked at
    "tar": a_tar(),
    "zip": zipped(a=b"1"),
}


async def check(folder: Path, data: bytes, declared: str) -> None:
    async def one() -> AsyncIterator[bytes]:
        yield data

    store = FolderStore(folder)
    digest, size = await store.put(one())
    await formats.check(store, digest, size, declared)


@pytest.mark.parametrize("declared", ["lightgbm", "onnx", "skops"])
@pytest.mark.parametrize("name", PICKLES)
async def test_a_pickle_is_refused_as_a_model_whatever_it_is_called(tmp_path: Path, name: str, declared: str) -> None:
    with pytest.raises((PickleRefused, FormatMismatch)) as refused:
        await check(tmp_path, PICKLES[name], declared)
    if declared != "skops" or name not in ("protocol 0", "protocol 1"):  # a text that is no archive is just no archive
        assert refused.type is PickleRefused


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("declared", ["zip", "text"])
async def test_nor_does_it_pass_as_something_else(tmp_path: Path, name: str, declared: str) -> None:
    if declared == "text" and name in ("protocol 0",):
        return  # it is text indeed, and nothing loads a text as a pickle
    with pytest.raises((PickleRefused, FormatMismatch)):
        await check(tmp_path, PICKLES[name], declared)


@pytest.mark.parametrize("declared", GOOD)
async def test_what_it_is_said_to_be_is_taken(tmp_path: Path, declared: str) -> None:
    await check(tmp_path, GOOD[declared], declared)


@pytest.mark.parametrize("declared", GOOD)
@pytest.mark.parametrize("actual", GOOD)
async def test_and_nothing_else(tmp_path: Path, declared: str, actual: str) -> None:
    texts = ("lightgbm", "csv", "json", "text")
    if declared == actual or (declared in texts[1:] and actual in (*texts, "onnx", "parquet")):
        return
    if {declared, actual} == {"zip", "skops"} and declared == "zip":
        return
    if declared == "csv":
        return  # anything without a NUL may be a table; what reads it says more
    with pytest.raises(FormatMismatch):
        await check(tmp_path, GOOD[actual], declared)


async def test_archives_that_are_made_to_break_the_reader(tmp_path: Path) -> None:
    good = GOOD["skops"]
    many = zipped(**{f"m{number}": b"" for number in range(formats.MOST_MEMBERS + 1)})
    for data in (good[:-10], good[:30], b"PK\x03\x04", b"PK\x03\x04" + b"\x00" * 100, b"", many):
        with pytest.raises(FormatMismatch):
            await check(tmp_path, data, "skops")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"{}")
        archive.writestr("zeros", b"\x00" * 50_000_000)
    await check(tmp_path, bomb.getvalue(), "skops")  # looked at by its first bytes, never unpacked
    zip64 = good[:-22] + b"PK\x06\x07" + b"\x00" * 16 + good[-22:]
    with pytest.raises(FormatMismatch):
        await check(tmp_path, zip64, "skops")


async def test_real_models_are_taken(tmp_path: Path) -> None:
    import lightgbm
    import skops.io
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32)
    labels = (rows[:, 0] > 0).astype(int)
    model = LogisticRegression().fit(rows, labels)
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(rows, labels), 3)
    await check(tmp_path, booster.model_to_string().encode(), "lightgbm")
    await check(tmp_path, skops.io.dumps(model), "skops")
    await check(tmp_path, to_onnx(model, rows[:1]).SerializeToString(), "onnx")


# Archives that are traps


def a_tar_of(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    return out.getvalue()


def a_zip_of(name: str, mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, b"x")
    return out.getvalue()


def a_bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"zeros-{number}", bytes(50_000_000))
    return out.getvalue()


@pytest.mark.parametrize(
    ("make", "declared"),
    [
        (lambda: a_zip_of("../../etc/cron.d/x"), "zip"),
        (lambda: a_zip_of("/etc/x"), "zip"),
        (lambda: a_zip_of("a\\..\\..\\x"), "zip"),
        (lambda: a_zip_of("C:/x"), "zip"),
        (lambda: a_zip_of("link", 0o120777), "zip"),
        (lambda: a_zip_of("../x"), "torch"),
        (a_bomb, "zip"),
        (lambda: a_tar_of("../x"), "tar"),
        (lambda: a_tar_of("/x"), "tar"),
        (lambda: a_tar_of("link", tarfile.SYMTYPE), "tar"),
        (lambda: a_tar_of("device", tarfile.CHRTYPE), "tar"),
    ],
)
async def test_an_archive_that_is_a_trap_is_refused(tmp_path: Path, make: Callable[[], bytes], declared: str) -> None:
    store, data = FolderStore(tmp_path), make()
    with pytest.raises(ArchiveRefused):
        await formats.check(store, await store.put_bytes(data), len(data), declared)


async def test_a_pickle_by_name_in_a_tar_is_found(tmp_path: Path) -> None:
    store, data = FolderStore(tmp_path), a_tar_of("model/data.pkl")
    with pytest.raises(PickleRefused):
        await formats.check(store, await store.put_bytes(data), len(data), "tar")


# What says itself that it is a pickle is scanned


async def scanned(data: bytes, declared: str) -> Scan:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    return await process.scan(chunks(), sha256(data), declared, lambda: datetime(2026, 11, 20, tzinfo=UTC))


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("id",))


@pytest.mark.parametrize(
    ("data", "declared", "verdict"),
    [
        (pickle.dumps({"weights": [1.0]}), "pickle", "clean"),
        (pickle.dumps(np.zeros(3)), "pickle", "suspicious"),
        (pickle.dumps([1]) + pickle.dumps(Attack()), "pickle", "dangerous"),
        (zlib.compress(pickle.dumps(Attack())), "joblib", "dangerous"),
        (zipped(archive_data__pkl=pickle.dumps({"w": 1.0})), "torch", "clean"),
        (zipped(archive_data__pkl=pickle.dumps(1), other=pickle.dumps(Attack())), "torch", "dangerous"),
        (an_object_array(), "numpy", "suspicious"),
        (pickle.dumps(np.zeros(3))[:-20], "pickle", "unreadable"),
    ],
)
async def test_the_scanners_say_what_a_pickle_runs(tmp_path: Path, data: bytes, declared: str, verdict: str) -> None:
    store = FolderStore(tmp_path)
    await formats.check(store, await store.put_bytes(data), len(data), declared)
    found = await scanned(data, declared)
    assert found.verdict == verdict
    assert [one.scanner for one in found.statements] == ["picklescan", "fickling"]
    assert all(one.version for one in found.statements)


async def test_a_scanner_that_takes_too_much_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_UNPACKED", 1_000_000)
    with pytest.raises(ScanFailed, match="without an answer"):
        await scanned(zlib.compress(bytes(2_000_000)), "joblib")
    monkeypatch.setattr(process, "TIMEOUT_S", 0.001)
    with pytest.raises(ScanFailed, match="longer than"):
        await scanned(pickle.dumps(1), "pickle")


async def test_what_says_that_it_is_a_pickle_and_is_none_is_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for declared in ("pickle", "joblib", "torch", "numpy"):
        with pytest.raises(FormatMismatch):
            await formats.check(store, await store.put_bytes(b"tree\nversion=v4"), 15, declared)
