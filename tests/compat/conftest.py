"""A real MLflow server and ours, for everything in a worker that needs both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.compat.mlflow_servers import Server


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    from tests.compat.mlflow_servers import both  # mlflow takes seconds to import, and other tests need none of it

    with both(tmp_path_factory.mktemp("mlflow")) as found:
        yield found
