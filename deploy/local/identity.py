"""Keys that an installation needs before its first start: signing keys, whom to trust, and the API key of its owner."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.folder import DataFolder, write_atomically

SIGNERS = ("policy", "deployer", "router", "registry", "prompts")
OWNER = "user:owner"
WORKSPACE = "default"


@dataclass(frozen=True)
class OwnerKey:
    """The API key of the person who ran `mintmark up`; the secret is kept in this file and nowhere else."""

    id: str
    secret: str


@dataclass(frozen=True)
class Keys:
    """Paths of everything that `ensure` has made; all of them are files of mode 0600 in a folder of mode 0700."""

    folder: Path

    @property
    def api_keys(self) -> Path:
        """What services know of API keys: hashes and public halves."""
        return self.folder / "keys.json"

    @property
    def trust(self) -> Path:
        """Signer name to base64 of its raw Ed25519 public key."""
        return self.folder / "trust.json"

    @property
    def owner(self) -> Path:
        return self.folder / "owner.json"

    @property
    def model_server_token(self) -> Path:
        """Shared by deployer and model server: who has it may load and unload models."""
        return self.folder / "model-server.token"

    @property
    def master_key(self) -> Path:
        """Shared by router and gateway: what providers' keys are sealed with."""
        return self.folder / "router-master-key.json"

    def signing_key(self, signer: str) -> Path:
        return self.folder / f"{signer}-signing-key.pem"


def ensure_keys(folder: DataFolder) -> Keys:
    """Make what is missing and keep what is there; losing a file voids only what was signed with it."""
    keys = Keys(folder.secrets)
    publics = {signer: _signing_key(keys.signing_key(signer)) for signer in SIGNERS}
    trusted = {signer: base64.b64encode(raw).decode() for signer, raw in publics.items()}
    _write_if_changed(keys.trust, json.dumps(trusted, indent=2) + "\n")
    if not keys.model_server_token.exists():
        write_atomically(keys.model_server_token, secrets.token_urlsafe(32) + "\n")
    if not keys.master_key.exists():
        made = base64.b64encode(secrets.token_bytes(32)).decode()
        write_atomically(keys.master_key, json.dumps({"current": "1", "keys": {"1": made}}) + "\n")
    _ensure_owner(keys)
    return keys


def read_owner(folder: DataFolder) -> OwnerKey:
    """The owner's API key; raises LocalError when `mintmark up` has not made it yet."""
    file = Keys(folder.secrets).owner
    try:
        stored = json.loads(file.read_text())
        return OwnerKey(id=stored["api_key_id"], secret=stored["api_key"])
    except FileNotFoundError as error:
        raise LocalError(f"There is no installation in {folder.root}: run `mintmark up` first.") from error
    except PermissionError as error:
        raise LocalError(f"{file} belongs to somebody else: run this as the user who ran `mintmark up`.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LocalError(f"{file} is damaged: delete it and run `mintmark up`, which makes a new key.") from error


def _ensure_owner(keys: Keys) -> None:
    """Publish the key's hash before its secret is written: a crash between the two leaves a key that nobody has."""
    if keys.owner.exists():
        return
    # Brings in the event contracts, a quarter of a second that `status` and `env` need not wait.
    from shared.identity.keys import ApiKey

    secret, record = ApiKey.generate(OWNER, ["owner"], WORKSPACE)
    known = json.loads(keys.api_keys.read_text()) if keys.api_keys.exists() else []
    others = [one for one in known if one["principal"] != OWNER]
    write_atomically(keys.api_keys, json.dumps([*others, record], indent=1) + "\n")
    owner = {"api_key_id": record["id"], "api_key": secret, "principal": OWNER, "workspace": WORKSPACE}
    write_atomically(keys.owner, json.dumps(owner, indent=2) + "\n")


def _signing_key(file: Path) -> bytes:
    """Raw public key (32 bytes) of the private key in the file, which is made if it is not there."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        private = load_pem_private_key(file.read_bytes(), password=None)
    except FileNotFoundError:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(file, pem.decode())
    except ValueError as error:
        raise LocalError(f"{file} is damaged: put back a good copy, or delete it to start with a new key.") from error
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _write_if_changed(file: Path, text: str) -> None:
    if not file.exists() or file.read_text() != text:
        write_atomically(file, text)


def inherited_environment() -> dict[str, str]:
    """This shell's environment, settings of services among it, without what may speak of another installation."""
    return {name: value for name, value in os.environ.items() if not _is_unwanted(name)}


def _is_unwanted(name: str) -> bool:
    """Addresses, credentials and test settings, for a process gets its own or none; and what makes every start slow.

    Importing the libraries takes 2 s of a core with their bytecode kept beside them and 5 s without.
    """
    if not name.startswith("MINTMARK_"):
        return name == "PYTHONDONTWRITEBYTECODE"
    return name.startswith(("MINTMARK_KAFKA_", "MINTMARK_API_KEY", "MINTMARK_TEST_")) or name.endswith(
        ("_DSN", "_URL", "_FILE", "_PORT", "_HOST")
    )
