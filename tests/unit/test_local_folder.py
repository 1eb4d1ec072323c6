"""The data folder: who may use it, which version made it, and what happens on a bad disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.credentials import Passwords
from deploy.local.errors import AlreadyBusyError, LocalError, explaining_os_errors
from deploy.local.folder import FORMAT_VERSION, DataFolder, check_free_space, write_atomically
from deploy.local.identity import ensure_keys, inherited_environment, read_owner
from shared.identity.dsse import read_trust_file
from shared.identity.keys import KeyRing


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.prepare()
    return made


def others_may(path: Path) -> int:
    return path.stat().st_mode & 0o077


def test_everything_secret_is_closed_to_others(folder: DataFolder) -> None:
    ensure_keys(folder)
    Passwords.of(folder.secrets / "postgres.json", cluster_exists=False)

    assert others_may(folder.secrets) == 0
    assert [path.name for path in folder.secrets.iterdir() if others_may(path)] == []
    assert others_may(folder.artefacts) == others_may(folder.kafka) == others_may(folder.logs) == 0


def test_a_folder_of_a_newer_version_is_refused_and_not_touched(folder: DataFolder) -> None:
    folder.marker.write_text(json.dumps({"format": FORMAT_VERSION + 1}))
    before = sorted(path.name for path in folder.root.iterdir())

    with pytest.raises(LocalError, match=r"newer Mintmark.*update Mintmark, or choose another folder with --data"):
        folder.prepare()

    assert sorted(path.name for path in folder.root.iterdir()) == before


def test_a_damaged_version_marker_is_refused_with_the_fix(folder: DataFolder) -> None:
    folder.marker.write_text("{")
    with pytest.raises(LocalError, match=r"damaged: write .*into it"):
        folder.prepare()


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="in the way"):
        DataFolder(tmp_path / "file" / "data").prepare()


def test_too_little_space_is_said_up_front(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"MiB free and 1000000000 MiB are needed: free some space, or choose"):
        check_free_space(tmp_path, needed_mib=10**9)


def test_a_disk_that_fills_up_half_way_is_a_sentence() -> None:
    # /dev/full answers every write with the real ENOSPC.
    with (
        pytest.raises(LocalError, match="is full: free some space"),
        explaining_os_errors(Path("/somewhere")),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")


def test_a_second_command_on_the_same_folder_hears_who_is_there(folder: DataFolder) -> None:
    expected = pytest.raises(AlreadyBusyError, match=r"`mintmark up` \(process \d+\) is at work in .*: wait")
    with folder.locked("`mintmark up`"), expected, folder.locked("`mintmark down`"):
        pass


def test_the_lock_is_free_again_after_its_holder_was_killed(folder: DataFolder) -> None:
    script = "import sys, os; from pathlib import Path; from deploy.local.folder import DataFolder\n"
    script += "with DataFolder(Path(sys.argv[1])).locked('x'): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(folder.root)], check=False)

    with folder.locked("`mintmark up`"):
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "half \ud800")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_passwords_stay_and_differ(folder: DataFolder) -> None:
    file = folder.secrets / "postgres.json"
    first = Passwords.of(file, cluster_exists=False)
    assert Passwords.of(file, cluster_exists=True) == first
    assert len({first.admin, *first.services.values()}) == 7


def test_lost_passwords_of_a_cluster_are_not_replaced_by_new_ones(folder: DataFolder) -> None:
    with pytest.raises(LocalError, match="put it back"):
        Passwords.of(folder.secrets / "postgres.json", cluster_exists=True)


def test_the_owner_can_log_in_with_the_key_that_up_wrote(folder: DataFolder) -> None:
    keys = ensure_keys(folder)
    owner = read_owner(folder)

    principal = KeyRing(keys.api_keys).authenticate(owner.secret)

    assert (principal.id, principal.workspace, principal.key_id) == ("user:owner", "default", owner.id)
    assert owner.secret not in keys.api_keys.read_text()


def test_keys_are_made_once(folder: DataFolder) -> None:
    ensure_keys(folder)
    before = {path.name: path.read_bytes() for path in folder.secrets.iterdir()}
    ensure_keys(folder)
    assert {path.name: path.read_bytes() for path in folder.secrets.iterdir()} == before


def test_the_trust_file_names_every_signer(folder: DataFolder) -> None:
    assert set(read_trust_file(ensure_keys(folder).trust)) == {"policy", "deployer", "router", "registry", "prompts"}


def test_a_lost_owner_key_is_replaced_and_the_old_one_revoked(folder: DataFolder) -> None:
    keys = ensure_keys(folder)
    lost = read_owner(folder)
    keys.owner.unlink()
    ensure_keys(folder)

    assert KeyRing(keys.api_keys).find(lost.id) is None
    assert KeyRing(keys.api_keys).find(read_owner(folder).id) is not None


def test_services_do_not_inherit_another_installations_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINTMARK_KAFKA_BOOTSTRAP", "elsewhere:9092")
    monkeypatch.setenv("MINTMARK_ADMIN_DSN", "postgresql://elsewhere")
    monkeypatch.setenv("MINTMARK_LOG_LEVEL", "DEBUG")
    ours = {name: value for name, value in inherited_environment().items() if name.startswith("MINTMARK_")}
    assert ours.get("MINTMARK_LOG_LEVEL") == "DEBUG"
    assert not {"MINTMARK_KAFKA_BOOTSTRAP", "MINTMARK_ADMIN_DSN"} & set(ours)
