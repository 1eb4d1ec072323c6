"""What docs/how-to/import-a-foreign-model.md tells people to run is run, as it stands there."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from guide import blocks
from registry_story import registry

from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
GUIDE = "import-a-foreign-model.md"


@asynccontextmanager
async def listening(installation: Installation) -> AsyncIterator[str]:
    """The registry of this process on a port; its address."""
    config = uvicorn.Config(
        installation.services["registry"].edge, host="127.0.0.1", port=0, lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def told(script: str, folder: Path, **environment: str) -> str:
    """What a block of the guide prints, with this checkout's command."""
    command = script.replace("mintmark ", f"{sys.executable} -m mintmark.cli.main ")
    kept = {**os.environ, "PYTHONPATH": str(ROOT / "sdk"), "COLUMNS": "200", **environment}
    process = await asyncio.create_subprocess_exec(
        "sh", "-ec", command, cwd=folder, env=kept, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_what_the_guide_says_shows_corrects_and_imports(installation: Installation, tmp_path: Path) -> None:
    foreign = ROOT / "tests" / "foreign" / "prognose.json"
    shutil.copy(foreign, tmp_path / "model.json")
    (tmp_path / "next-model.json").write_text(foreign.read_text().replace("91,2 %", "85 %").replace("Schaden", "Neue"))
    look, correct = blocks(GUIDE, "sh")
    async with registry(installation) as it, listening(installation) as url:
        environment = {"MINTMARK_URL": url, "MINTMARK_API_KEY": it.key}
        shown = await told(look, tmp_path, **environment)
        assert "inputs.alter" in shown and "/Kennzahlen" in shown and "Left, and kept" in shown
        assert (await it.client.get("/registry/v1/foreign")).json()["items"][0]["version"] is None
        imported = await told(correct, tmp_path, **environment)
        assert "0.912 fraction" in imported and "0.85 fraction" in imported and "mapping" in imported
        assert imported.count("@1") == 2, imported
