"""A real model server in a process of its own, and a real bundle for it: what tests and benches of targets stand on."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
import lightgbm
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sklearn.datasets import load_breast_cancer

from services.deployer.bundle import Bundle, Feature, Manifest, build

KEY: Final = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
START_TIMEOUT_S: Final = 30.0


def write_trust_file(path: Path, **keys: Ed25519PrivateKey) -> Path:
    """A trust file with the public halves of `keys` (keyid to private key)."""
    encoded = {name: base64.b64encode(key.public_key().public_bytes_raw()).decode() for name, key in keys.items()}
    path.write_text(json.dumps(encoded))
    return path


def manifest(name: str, version: str = "1", **more: Any) -> Manifest:
    """A manifest with the fields that no test cares about filled in."""
    given: dict[str, Any] = {"asset": f"mm:model/{name}", "asset_digest": "sha256:" + "0" * 64, "workspace": "default"}
    return Manifest.model_validate(given | {"model_name": name, "version": version} | more)


def breast_cancer(features: int = 16) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[str]]:
    """Rows [569, features], labels [569] (0 malignant, 1 benign) and names, from scikit-learn's bundled data."""
    data = load_breast_cancer()
    return data.data[:, :features], data.target, [str(name).replace(" ", "_") for name in data.feature_names[:features]]


def lightgbm_bundle(
    folder: Path, name: str = "tumour", version: str = "1", rounds: int = 20, features: int = 16, **more: Any
) -> tuple[Bundle, lightgbm.Booster]:
    """A binary LightGBM classifier, all features nullable, as a bundle signed by KEY in `folder`."""
    rows, target, names = breast_cancer(features)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": int(version)}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target, feature_name=names), rounds)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.txt"
    booster.save_model(str(model))
    described = manifest(
        name,
        version,
        format="lightgbm",
        model_file="model.txt",
        task="binary",
        labels=("malignant", "benign"),
        features=[Feature(name=n, nullable=True) for n in names],
        **more,
    )
    return build(folder, described, {"model.txt": model}, KEY), booster


@dataclass
class ModelServer:
    """`with ModelServer(folder) as server:` starts one on a free port, trusting KEY, and ends it afterwards."""

    folder: Path
    options: Sequence[str] = ()
    keys: Mapping[str, Ed25519PrivateKey] = field(default_factory=lambda: {"deployer": KEY})
    url: str = ""
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    def start(self, wait_ready: bool = True) -> None:
        """Raises AssertionError with the process' log when it does not come up."""
        trust = write_trust_file(self.folder / "trust.json", **self.keys)
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "services.deployer.model_server", "--repository", str(self.repository)]
        command += ["--trust", str(trust), "--port-file", str(port_file), *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not port_file.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, f"the server did not start:\n{self.log}"
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{port_file.read_text()}"
        with httpx.Client(base_url=self.url) as client:
            while wait_ready and client.get("/v2/health/ready").status_code != 200:
                assert self.process.poll() is None and time.monotonic() < deadline, f"it is not ready:\n{self.log}"
                time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None, "not started"
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None, "not started"
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(timeout=20)

    def load(self, bundle: Bundle) -> httpx.Response:
        """Upload the bundle and load it; the answer to whichever failed, else to the load."""
        with bundle.path.open("rb") as content:
            stored = httpx.put(f"{self.url}/v2/repository/bundles/{bundle.digest}", content=content, timeout=30)
        if stored.is_error:
            return stored
        body = {"parameters": {"bundle": bundle.digest}}
        url = f"{self.url}/v2/repository/models/{bundle.manifest.model_name}/load"
        return httpx.post(url, json=body, timeout=30)
