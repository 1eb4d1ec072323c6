"""Where Mintmark answers and with which key: from the environment, else from the data folder of `mintmark up`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Connection:
    """`api_key` is None where none was found; calls are then refused by the server."""

    url: str = "http://127.0.0.1:8700"
    gateway_url: str = "http://127.0.0.1:8710"
    kafka_bootstrap: str = "127.0.0.1:8792"
    api_key: str | None = None

    @classmethod
    def find(cls) -> Connection:
        """MINTMARK_URL, _GATEWAY_URL, _KAFKA_BOOTSTRAP and _API_KEY; the nearest data folder has what is not set."""
        local = _of_data_folder()
        return cls(
            url=os.environ.get("MINTMARK_URL", local.url).rstrip("/"),
            gateway_url=os.environ.get("MINTMARK_GATEWAY_URL", local.gateway_url).rstrip("/"),
            kafka_bootstrap=os.environ.get("MINTMARK_KAFKA_BOOTSTRAP", local.kafka_bootstrap),
            api_key=os.environ.get("MINTMARK_API_KEY", local.api_key),
        )


def _of_data_folder() -> Connection:
    for folder in _candidates():
        try:
            ports = json.loads((folder / "ports.json").read_text())
            key = json.loads((folder / "secrets" / "owner.json").read_text())["api_key"]
            url, gateway = (f"http://127.0.0.1:{ports[name]}" for name in ("front", "gateway"))
            return Connection(url, gateway, f"127.0.0.1:{ports['kafka']}", key)
        except (OSError, ValueError, KeyError):
            continue
    return Connection()


def _candidates() -> Iterator[Path]:
    if given := os.environ.get("MINTMARK_DATA"):
        yield Path(given).expanduser()
        return
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / ".mintmark"
    yield Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "mintmark"
