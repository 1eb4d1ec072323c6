"""What docs/how-to/publish-events.md tells people to run is run, as it stands there, and answered."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from shared.events.registry import AssetRegistered
from shared.testing.backing import Backing
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "publish-events.md"


async def test_what_the_guide_says_publishes_and_is_answered(backing: Backing, tmp_path: Path) -> None:
    # One test for all of it: its topics have the names that the guide says, so no other may run beside it.
    plain = await Installation(backing, tmp_path / "installation", prefix="").prepare()
    try:
        await plain.start("registry")
        commands = [(sys.executable, "-c", block("python"))]
        if shutil.which("kcat"):
            commands.append(("sh", "-ec", next(one for one in blocks("sh") if "kcat" in one)))
        for command in commands:
            submission = write_event(tmp_path)
            await run(plain, tmp_path, *command)
            registered = await plain.wait_for(
                AssetRegistered, lambda event, sent=submission: event.submission_id == sent
            )
            assert registered.author.id == "unverified"
    finally:
        await plain.close()


def write_event(folder: Path) -> object:
    """A submission in `event.json`, on many lines; returns its submission_id."""
    submission = uuid4()
    data = {"submission_id": str(submission), "kind": "vendor-model", "name": f"by-hand-{submission.hex[:8]}"}
    event = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "by/hand",
        "type": "asset.submitted.v1",
        "subject": f"mm:vendor-model/{data['name']}",
        "data": data,
    }
    (folder / "event.json").write_text(json.dumps(event, indent=1))
    return submission


async def run(installation: Installation, folder: Path, *command: str) -> None:
    """In a folder that holds event.json, with nothing of Mintmark to import."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["MINTMARK_KAFKA_BOOTSTRAP"] = installation.backing.bootstrap
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def block(language: str) -> str:
    (found,) = blocks(language)
    return found


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
