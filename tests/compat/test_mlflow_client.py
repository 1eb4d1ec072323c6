"""MLflow's released client, unmodified, against a real MLflow server and against ours: same calls, same answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat import mlflow_models, mlflow_tracking
from tests.compat.mlflow_differences import DIFFERENCES
from tests.compat.mlflow_servers import OURS, REAL, Findings, Server

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("mlflow")]
PAGE = Path(__file__).parents[2] / "docs/how-to/from-mlflow.md"
SCENARIOS: tuple[Callable[[Findings], None], ...] = (*mlflow_models.SCENARIOS, *mlflow_tracking.SCENARIOS)
NAMES = {scenario.__name__ for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_both_servers_answer_alike(
    scenario: Callable[[Findings], None], servers: dict[str, Server], tmp_path: Path
) -> None:
    found: dict[str, dict[str, Any]] = {}
    for name, server in servers.items():
        with server.chosen() as client:
            findings = Findings(client, server, tmp_path / name)
            scenario(findings)
            found[name] = findings.found
    assert found[OURS].keys() == found[REAL].keys()
    wrong = []
    for check, real in found[REAL].items():
        ours, known = found[OURS][check], (scenario.__name__, check) in DIFFERENCES
        if (ours != real) != known:
            wrong.append(f"{check}{' (a known difference that is none)' if known else ''}:\n  {real}\n  {ours}")
    assert not wrong, "MLflow says, and we say:\n" + "\n".join(wrong)
    print(f"{len(found[REAL])} checks of {scenario.__name__}")


def test_the_page_shows_every_difference() -> None:
    shown = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \|$", PAGE.read_text(), re.MULTILINE)
    rows = {(scenario, check): why for scenario, check, why in shown if scenario in NAMES}
    assert rows == DIFFERENCES


def test_the_page_does_what_it_says(servers: dict[str, Server], capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with servers[OURS].chosen():
        capsys.readouterr()
        exec(compile(block, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["s3://models/credit/7", "Good day Ada!"]


def test_there_are_as_many_checks_as_we_say() -> None:
    """Counted in the source, since a scenario may run in another process of the test run."""
    source = "".join((Path(__file__).parent / f"mlflow_{name}.py").read_text() for name in ("models", "tracking"))
    assert source.count("it.check(") > 200
