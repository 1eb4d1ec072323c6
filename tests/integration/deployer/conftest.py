"""A model, a model server that trusts the installation's deployer, and the world around them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightgbm
import pytest

from services.deployer.model_server.testing import ModelServer, breast_cancer
from shared.identity.identity import signing_key
from shared.testing.installation import Installation

from .world import FEATURES, World


@pytest.fixture(scope="session")
def booster() -> lightgbm.Booster:
    rows, target, names = breast_cancer(FEATURES)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, target, feature_name=names), 10)


@pytest.fixture
def model_server(installation: Installation, tmp_path: Path) -> Iterator[ModelServer]:
    keys = {"deployer": signing_key(installation.folder / "deployer.pem")}
    with ModelServer(tmp_path / "model-server", keys=keys) as server:
        yield server


@pytest.fixture
def world(installation: Installation, model_server: ModelServer, booster: lightgbm.Booster) -> World:
    return World(installation, model_server, booster)
