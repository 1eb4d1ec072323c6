"""A bundle opens only when every byte of it is what was signed, and opening it writes nothing anywhere."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.deployer.bundle import (
    MANIFEST_NAME,
    PAYLOAD_TYPE,
    Bundle,
    BundleRefused,
    Feature,
    Manifest,
    build,
    file_name,
    open_verified,
)
from shared.errors import Invalid, SignatureRefused
from shared.identity.dsse import sign

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
TRUSTED = {"deployer": KEY.public_key()}
MANIFEST = Manifest(
    asset="mm:model/credit-pd",
    version="1",
    asset_digest="sha256:" + "a" * 64,
    workspace="default",
    model_name="credit-pd",
    format="lightgbm",
    model_file="model.txt",
    task="binary",
    labels=("good", "bad"),
    features=(Feature(name="age"), Feature(name="income", nullable=True)),
    background=(40.0, None),
    licence="CC-BY-4.0",
    evidence={"gate": "0198c0de-0000-7000-8000-000000000000"},
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    source = tmp_path / "source"
    source.mkdir()
    contents = {"model.txt": b"tree\n" * 300, "notes.md": b"", "exact.bin": bytes(512)}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    return {name: source / name for name in contents}


@pytest.fixture
def bundle(tmp_path: Path, files: dict[str, Path]) -> Bundle:
    return build(tmp_path / "bundles", MANIFEST, files, KEY)


def test_what_was_built_opens_with_all_it_holds(bundle: Bundle, files: dict[str, Path]) -> None:
    opened = open_verified(bundle.path, TRUSTED)
    assert opened == bundle and opened.manifest == MANIFEST
    assert {name: opened.read(name) for name in opened.members} == {n: p.read_bytes() for n, p in files.items()}
    assert bundle.path.name == file_name(bundle.digest) and bundle.size == bundle.path.stat().st_size


def test_any_tar_program_can_list_it(bundle: Bundle) -> None:
    with tarfile.open(bundle.path) as tar:
        assert tar.getnames() == [MANIFEST_NAME, "exact.bin", "model.txt", "notes.md"]


def test_the_same_contents_give_the_same_bytes(tmp_path: Path, bundle: Bundle, files: dict[str, Path]) -> None:
    os.utime(files["model.txt"], (1, 1))
    again = build(tmp_path / "elsewhere", MANIFEST, dict(reversed(files.items())), KEY)
    assert again.digest == bundle.digest and again.path.read_bytes() == bundle.path.read_bytes()


def test_building_leaves_nothing_half_written(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = tmp_path / "bundles"
    with pytest.raises(FileNotFoundError):
        build(folder, MANIFEST, files | {"gone.txt": tmp_path / "gone"}, KEY)
    assert not folder.exists() or not list(folder.iterdir())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_refused(bundle: Bundle, data: st.DataObject) -> None:
    raw = bytearray(bundle.path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    bad = bundle.path.with_name("flipped.tar")
    bad.write_bytes(raw)
    with pytest.raises((BundleRefused, SignatureRefused)):
        open_verified(bad, TRUSTED)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_bundle_cut_short_or_grown_is_refused(bundle: Bundle, data: st.DataObject) -> None:
    raw = bundle.path.read_bytes()
    cut = data.draw(st.one_of(st.integers(0, len(raw) - 1), st.integers(len(raw) + 1, len(raw) + 10_240)))
    bad = bundle.path.with_name("cut.tar")
    bad.write_bytes(raw[:cut] + bytes(max(0, cut - len(raw))))
    with pytest.raises((BundleRefused, SignatureRefused)):
        open_verified(bad, TRUSTED)


def test_another_signer_is_refused(bundle: Bundle) -> None:
    with pytest.raises(SignatureRefused, match="does not fit"):
        open_verified(bundle.path, {"deployer": OTHER.public_key()})
    with pytest.raises(SignatureRefused, match="not trusted"):
        open_verified(bundle.path, {"policy": KEY.public_key()})


def entry(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, link, 0o644
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    return add


def repacked(bundle: Bundle, *, without: str = "", more: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    """What somebody with a tar program, but without the key, can make of a bundle; padded and cut in our own way."""
    path = bundle.path.with_name("repacked.tar")
    out = io.BytesIO()
    with tarfile.open(bundle.path) as tar, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as bad:
        for member in tar:
            if member.name == without:
                if more:
                    more(bad)
                continue
            bad.addfile(member, tar.extractfile(member))
        if more and not without:
            more(bad)
        end = bad.offset
    path.write_bytes(out.getvalue()[:end] + bytes(1024))
    return path


def test_repacking_by_itself_changes_nothing(bundle: Bundle) -> None:
    """Otherwise the refusals below would prove nothing about what was changed."""
    assert open_verified(repacked(bundle), TRUSTED).digest == bundle.digest


@pytest.mark.parametrize(
    ("without", "more"),
    [
        ("", entry("zzz.txt", b"more")),
        ("", entry("../../escaped.txt", b"more")),
        ("", entry("/tmp/escaped.txt", b"more")),
        ("notes.md", None),
        ("model.txt", None),
        (MANIFEST_NAME, None),
        ("model.txt", entry("model.txt", kind=tarfile.SYMTYPE, link="/etc/passwd")),
        ("model.txt", entry("model.txt", kind=tarfile.LNKTYPE, link="exact.bin")),
        ("model.txt", entry("model.txt", kind=tarfile.DIRTYPE)),
        ("model.txt", entry("model.txt", kind=tarfile.FIFOTYPE)),
        ("model.txt", entry("../model.txt", b"tree\n" * 300)),
        ("model.txt", entry("m" * 200, b"tree\n" * 300)),
        ("model.txt", entry("modèl.txt", b"tree\n" * 300)),
        ("model.txt", entry("model.txt", b"TREE\n" * 300)),
    ],
)  # fmt: skip
def test_a_bundle_made_over_is_refused_and_nothing_is_written(
    tmp_path: Path, bundle: Bundle, without: str, more: Callable[[tarfile.TarFile], None] | None
) -> None:
    bad = repacked(bundle, without=without, more=more)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleRefused):
        open_verified(bad, TRUSTED)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unsigned_manifest_is_refused(bundle: Bundle) -> None:
    envelope = json.loads(bundle.path.read_bytes()[512:].split(b"\0")[0])
    envelope["signatures"] = []
    bad = repacked(bundle, without=MANIFEST_NAME, more=entry(MANIFEST_NAME, json.dumps(envelope).encode()))
    with pytest.raises(SignatureRefused, match="not signed"):
        open_verified(bad, TRUSTED)


@pytest.mark.parametrize(
    "statement",
    [
        {"_type": "https://in-toto.io/Statement/v1", "predicateType": "urn:mintmark:verdict:v1"},
        {"_type": "https://in-toto.io/Statement/v1", "predicateType": "urn:mintmark:bundle:v1"},
        {"_type": "https://in-toto.io/Statement/v1", "predicateType": "urn:mintmark:bundle:v1", "subject": 3,
         "predicate": MANIFEST.model_dump(mode="json")},
        {"_type": "https://in-toto.io/Statement/v1", "predicateType": "urn:mintmark:bundle:v1", "subject": [],
         "predicate": MANIFEST.model_dump(mode="json")},
        [],
    ],
)  # fmt: skip
def test_a_signed_statement_about_something_else_is_no_manifest(bundle: Bundle, statement: object) -> None:
    envelope = sign(json.dumps(statement).encode(), PAYLOAD_TYPE, KEY, "deployer").to_json()
    bad = repacked(bundle, without=MANIFEST_NAME, more=entry(MANIFEST_NAME, envelope))
    with pytest.raises((SignatureRefused, BundleRefused)):
        open_verified(bad, TRUSTED)


def test_a_link_or_a_pipe_in_place_of_the_bundle_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    link, pipe = tmp_path / "link.tar", tmp_path / "pipe.tar"
    link.symlink_to(bundle.path)
    os.mkfifo(pipe)
    for path in (link, pipe):
        with pytest.raises(BundleRefused):
            open_verified(path, TRUSTED)


def test_bytes_that_change_after_opening_are_not_handed_out(bundle: Bundle) -> None:
    raw = bundle.path.read_bytes()
    bundle.path.write_bytes(raw.replace(b"tree", b"TREE", 1))
    with pytest.raises(BundleRefused, match="changed after"):
        bundle.read("model.txt")


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "", ".hidden", "a\nb", "ä", "x" * 81])
def test_names_that_could_lead_elsewhere_are_never_bundled(tmp_path: Path, files: dict[str, Path], name: str) -> None:
    with pytest.raises(Invalid, match="cannot name a file"):
        build(tmp_path / "bundles", MANIFEST, files | {name: files["notes.md"]}, KEY)


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": ("one",)}, {"labels": ("same", "same")}, {"task": "regression"}, {"background": (1.0,)},
        {"features": ()}, {"features": (Feature(name="a"), Feature(name="a"))}, {"asset": "mm:prompt/x"},
        {"model_name": "../x"}, {"version": ""}, {"asset_digest": "sha256:zz"}, {"format": "pickle"},
        {"background": (float("nan"), 1.0)}, {"unknown": 1},
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate(MANIFEST.model_dump() | fields)
