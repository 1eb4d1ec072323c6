"""Services built but not started: enough to hold what they declare against what they are."""

from __future__ import annotations

import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.service import Service
from shared.settings import PlatformSettings


@cache
def built(name: str) -> Service:
    """The service with an address that nobody answers at."""
    folder = Path(tempfile.mkdtemp(prefix="mintmark-declared-"))
    key = folder / "key.pem"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    settings_class = import_module(f"services.{name}.settings").Settings
    more = {"signing_key_file": key} if "signing_key_file" in settings_class.model_fields else {}
    settings = settings_class(
        dsn=f"postgresql://mintmark_{name}@127.0.0.1:1/none", platform=PlatformSettings(data=folder), **more
    )
    service: Service = import_module(f"services.{name}.app").build(settings)
    return service
