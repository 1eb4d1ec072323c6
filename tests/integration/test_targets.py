"""The conformance suite: every target in the table is held to the same promises, on a real one of its kind."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.deployer.bundle import build
from services.deployer.model_server.testing import ModelServer, breast_cancer, lightgbm_bundle
from services.deployer.targets import TARGETS, State, Status, Target, TargetRefused, TargetUnavailable, target


@contextmanager
def local_world(folder: Path) -> Iterator[tuple[str, str | None]]:
    folder.mkdir()
    (folder / "token").write_text("s3cret")
    with ModelServer(folder, ["--token-file", str(folder / "token")]) as server:
        yield server.url, "s3cret"


# A place to run each target on: (its URL, its token). A new target needs its line here.
WORLDS: dict[str, Callable[[Path], AbstractContextManager[tuple[str, str | None]]]] = {"local": local_world}


def test_every_target_has_a_world_to_be_tested_on() -> None:
    assert WORLDS.keys() == TARGETS.keys(), "add the new target to WORLDS in tests/integration/test_targets.py"


@pytest.fixture(scope="module", params=sorted(TARGETS))
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str, str | None]]:
    with WORLDS[request.param](tmp_path_factory.mktemp("world") / request.param) as (url, token):
        yield request.param, url, token


@pytest.fixture
async def place(world: tuple[str, str, str | None]) -> AsyncIterator[Target]:
    name, url, token = world
    opened = target(name, url, token=token)
    yield opened
    await opened.aclose()


def ask(url: str) -> httpx.Response:
    rows, _, _ = breast_cancer()
    tensor = {"name": "input", "shape": [2, 16], "datatype": "FP64", "data": rows[:2].tolist()}
    return httpx.post(url, json={"inputs": [tensor]})


async def test_what_was_deployed_answers_at_its_endpoint(place: Target, tmp_path: Path) -> None:
    bundle, booster = lightgbm_bundle(tmp_path, "answers")
    endpoint = await place.deploy(bundle)
    assert (endpoint.model_name, endpoint.version, endpoint.bundle_digest) == ("answers", "1", bundle.digest)
    assert endpoint.target == place.name
    assert await place.status("answers", "1") == Status(State.READY)
    answer = ask(endpoint.url).json()
    assert (answer["model_name"], answer["model_version"]) == ("answers", "1")
    np.testing.assert_allclose(answer["outputs"][0]["data"], booster.predict(breast_cancer()[0][:2]))


async def test_it_describes_what_it_serves_and_lists_it_with_its_address(place: Target, tmp_path: Path) -> None:
    bundle, _ = lightgbm_bundle(tmp_path, "listed")
    endpoint = await place.deploy(bundle)
    said = await place.metadata("listed", "1")
    assert (said["name"], said["parameters"]["bundle"]) == ("listed", bundle.digest)
    assert said["parameters"]["asset_digest"] == bundle.manifest.asset_digest
    assert (await place.serving())["listed", "1"].url == endpoint.url
    await place.undeploy("listed", "1")
    assert ("listed", "1") not in await place.serving()
    with pytest.raises(TargetRefused):
        await place.metadata("listed", "1")


async def test_deploying_twice_is_deploying_once(place: Target, tmp_path: Path) -> None:
    bundle, _ = lightgbm_bundle(tmp_path, "twice")
    assert await place.deploy(bundle) == await place.deploy(bundle)


async def test_a_new_version_leaves_the_old_one_serving(place: Target, tmp_path: Path) -> None:
    first = await place.deploy(lightgbm_bundle(tmp_path / "1", "side", "1")[0])
    second = await place.deploy(lightgbm_bundle(tmp_path / "2", "side", "2")[0])
    assert [ask(e.url).json()["model_version"] for e in (first, second)] == ["1", "2"]


async def test_undeploying_ends_one_version_and_may_be_repeated(place: Target, tmp_path: Path) -> None:
    first = await place.deploy(lightgbm_bundle(tmp_path / "1", "ends", "1")[0])
    second = await place.deploy(lightgbm_bundle(tmp_path / "2", "ends", "2")[0])
    for _ in range(2):
        await place.undeploy("ends", "1")
        assert await place.status("ends", "1") == Status(State.ABSENT)
    assert ask(first.url).status_code == 404 and ask(second.url).status_code == 200
    bundle, _ = lightgbm_bundle(tmp_path / "1", "ends", "1")
    assert await place.deploy(bundle) == first  # and it can come back


async def test_what_was_never_there_is_absent(place: Target) -> None:
    assert await place.status("nobody", "1") == Status(State.ABSENT)
    await place.undeploy("nobody", "1")


async def test_a_bundle_of_another_signer_is_refused_by_the_target_itself(place: Target, tmp_path: Path) -> None:
    bundle, _ = lightgbm_bundle(tmp_path, "foreign")
    other = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
    foreign = build(tmp_path / "other", bundle.manifest, {"model.txt": tmp_path / "model.txt"}, other)
    with pytest.raises(TargetRefused, match="signature"):
        await place.deploy(foreign)
    assert await place.status("foreign", "1") == Status(State.ABSENT)


async def test_a_bundle_with_one_byte_flipped_is_refused_by_the_target_itself(place: Target, tmp_path: Path) -> None:
    bundle, _ = lightgbm_bundle(tmp_path, "flipped")
    raw = bytearray(bundle.path.read_bytes())
    raw[-3000] ^= 1
    bundle.path.write_bytes(raw)
    with pytest.raises(TargetRefused):
        await place.deploy(bundle)
    assert await place.status("flipped", "1") == Status(State.ABSENT)


async def test_a_version_is_never_served_from_two_bundles(place: Target, tmp_path: Path) -> None:
    endpoint = await place.deploy(lightgbm_bundle(tmp_path / "1", "one")[0])
    other, _ = lightgbm_bundle(tmp_path / "2", "one", rounds=3)
    with pytest.raises(TargetRefused, match="unload it first"):
        await place.deploy(other)
    assert ask(endpoint.url).status_code == 200


async def test_a_target_that_does_not_answer_is_unavailable_not_refusing(
    world: tuple[str, str, str | None], tmp_path: Path
) -> None:
    with socket.socket() as nobody:  # bound, and listening to nothing
        nobody.bind(("127.0.0.1", 0))
        gone = target(world[0], f"http://127.0.0.1:{nobody.getsockname()[1]}")
        bundle, _ = lightgbm_bundle(tmp_path)
        for attempt in (gone.deploy(bundle), gone.undeploy("x", "1"), gone.status("x", "1"), gone.serving()):
            with pytest.raises(TargetUnavailable, match="is it running"):
                await attempt
        await gone.aclose()


async def test_a_wrong_token_changes_nothing(world: tuple[str, str, str | None], tmp_path: Path) -> None:
    intruder = target(world[0], world[1], token="guess")
    with pytest.raises(TargetRefused):
        await intruder.deploy(lightgbm_bundle(tmp_path, "intruder")[0])
    assert await intruder.status("intruder", "1") == Status(State.ABSENT)
    await intruder.aclose()


def test_a_target_that_is_not_in_the_table_is_named() -> None:
    with pytest.raises(TargetRefused, match="'moon'"):
        target("moon", "http://127.0.0.1:1")
