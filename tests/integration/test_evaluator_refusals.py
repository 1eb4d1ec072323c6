"""What the evaluator cannot measure of a prompt is an error with a code, never a score; and it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from evaluations_story import CHATTY, ONE_WORD, golden, golden_rows, registered, start, wanted
from oracle import Oracle

from services.router.gateway.testing.stub import served
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.upstream import DatasetVersion, EvalRequested
from shared.testing.backing import Backing
from shared.testing.installation import Installation

pytestmark = [pytest.mark.timeout(150), pytest.mark.asyncio(loop_scope="module")]
VERSIONS = count(1)


@dataclass
class World:
    """One evaluator for all of them, and the model that it asks."""

    installation: Installation
    model: Oracle

    async def refused(self, request: EvalRequested) -> EvalFailed:
        await self.installation.publish(request)
        ours = lambda event: event.evaluation_id == request.request_id  # noqa: E731
        failed: EvalFailed = await self.installation.wait_for(EvalFailed, ours)
        assert not [event for event in await self.installation.events(EvalCompleted) if ours(event)]
        return failed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("evaluations")
    made = await Installation(Backing.of_run(), folder / "installation").prepare()
    model = Oracle()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(served(model))
        stack.push_async_callback(made.close)
        await start(made, f"http://127.0.0.1:{port}", most_attempts=2)
        await golden(made, golden_rows(12))
        yield World(made, model)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ question }}"
BACKTRACKING = {
    "text": "{{ question }}",
    "variables": {"question": {"type": "string", "json_schema": {"pattern": "^(([a-zA-Z ]+)+)+$"}}},
}
FAILURES: dict[str, tuple[str, dict[str, Any] | bytes, dict[str, Any]]] = {
    # what is asked for
    "no template": ("template-unknown", ONE_WORD, {"template": "summarization"}),
    "a model's template": ("template-unknown", ONE_WORD, {"template": "tabular-classification"}),
    # what the golden set lacks
    "a variable without a column": (
        "variable-missing",
        {"text": "{{ question }} {{ context }}", "variables": {**CHATTY["variables"], "context": {"type": "string"}}},
        {},
    ),
    "a prompt that would be shown the answer": (
        "variable-missing",
        {"text": "{{ label }}", "variables": {"label": {"type": "string"}}},
        {},
    ),
    "no variable at all": ("variable-missing", {"text": "Hello", "variables": {}}, {}),
    # what cannot be rendered
    "bytes": ("prompt-unreadable", b"Answer: {{ question }}", {}),
    "a type that does not fit": (
        "render-refused",
        {"text": "{{ question }}", "variables": {"question": {"type": "integer"}}},
        {},
    ),
    "a bomb": ("render-too-large", {**CHATTY, "text": LOOP}, {}),
    "a bomb in memory": ("render-too-large", {**CHATTY, "text": "{{ 'a'.center(10**9) }}{{ question }}"}, {}),
    "a bomb in C": ("render-too-large", BACKTRACKING, {}),
    # what does not answer
    "forbidden": ("answers-refused", ONE_WORD, {"model": "forbidden"}),
    "garbage": ("answers-refused", ONE_WORD, {"model": "garbage"}),
    "no text": ("answers-refused", ONE_WORD, {"model": "mute"}),
    "half": ("answers-refused", ONE_WORD, {"model": "half"}),
    "down": ("gateway-unavailable", ONE_WORD, {"model": "down"}),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
async def test_what_cannot_be_measured_is_an_error_and_no_score(world: World, what: str) -> None:
    code, document, more = FAILURES[what]
    asset = await registered(world.installation, document, next(VERSIONS))
    request = wanted(asset, **more)
    failed = await world.refused(request)
    assert (failed.code, failed.asset) == (code, asset), failed.reason
    assert failed.reason
    if what == "down":
        assert max(world.model.by_model["down"].values()) == 6, "three tries of each of two attempts"


async def test_the_next_one_is_measured_as_if_nothing_had_been(world: World) -> None:
    bomb = wanted(await registered(world.installation, BACKTRACKING, next(VERSIONS)))
    good = wanted(await registered(world.installation, ONE_WORD, next(VERSIONS)))
    await world.installation.publish(bomb)
    await world.installation.publish(good)
    done = await world.installation.wait_for(EvalCompleted, lambda event: event.evaluation_id == good.request_id)
    assert done.measures["exact_match"].value == 1


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (b"", "golden-set-empty"),
        (b'{"question": "q", "label": null}\n', "label-missing"),
        (b'{"question": "q", "label": []}\n', "golden-set-empty"),
        (b'{"question": "q"}\n', "label-missing"),
        (b'{"question": "q", "label": "a"}\n[1]\n', "golden-set-unreadable"),
        (b'{"question": NaN, "label": "a"}\n', "golden-set-unreadable"),
        (b'{"question": "q", "label": "a"}\n{"label": "b"}\n', "render-refused"),
    ],
)
async def test_a_golden_set_that_asks_nothing_is_an_error(world: World, rows: bytes, code: str) -> None:
    version = next(VERSIONS)
    asset = await registered(world.installation, ONE_WORD, version)
    own = DatasetVersion(urn="mm:dataset/odd", version=version)
    await golden(world.installation, rows, own, format="jsonl")
    before = len(world.model.asked)
    failed = await world.refused(wanted(asset, golden_set=own))
    assert failed.code == code, failed.reason
    assert len(world.model.asked) == before
