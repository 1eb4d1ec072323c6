"""The walls of the house: who may import whom, which rooms a service has, and that its word is kept by its code."""

from __future__ import annotations

import ast
import logging
import re
from importlib import import_module
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from shared.bus.inbox import Consumer
from shared.events import ALL, BY_TYPE, SERVICES
from shared.testing.declared import built

ROOT = Path(__file__).parents[2]
ROOMS = {
    "__init__", "app", "settings", "api", "consumers", "handlers", "domain", "store", "errors", "worker",
    "queries.sql", "migrations",
}  # fmt: skip
TRADE = {
    "evaluator": {"answers", "scorers", "templates", "models", "scoring", "processes"},
    "deployer": {"targets", "model_server", "bundle", "packing", "rollout", "lapsed"},
    "router": {"gateway", "approval", "batches", "comparison", "group_settings", "providers", "ramps", "tables"},
    "registry": {
        "beside",
        "datasets",
        "foreign",
        "formats",
        "graphql",
        "importers",
        "licences",
        "mlflow",
        "openlineage",
        "reuse",
        "scanning",
        "search",
        "sources",
    },
    "policy": {"gates", "verifier"},
    "prompts": {"fetching", "langfuse", "rendering"},
}
MUST_HAVE = {
    "__init__", "app", "settings", "api", "consumers", "handlers", "domain", "store", "errors", "queries.sql",
    "migrations",
}  # fmt: skip


def test_imports_keep_to_the_walls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    loggers = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [(one, one.disabled) for one in loggers]
    try:
        assert lint_imports(no_cache=True) == 0, "run `lint-imports` to see which wall was broken"
    finally:
        for logger, was_disabled in before:  # the linter silences all that are there, for the rest of the process
            logger.disabled = was_disabled


def rooms_of(service: str) -> set[str]:
    found = (ROOT / "services" / service).iterdir()
    return {path.stem if path.suffix == ".py" else path.name for path in found if path.name != "__pycache__"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_rooms_that_its_siblings_have(service: str) -> None:
    found = rooms_of(service)
    others = found - ROOMS - TRADE[service]
    assert others == set(), (
        "a room was renamed or added: siblings have the same rooms; those of the trade stand in TRADE"
    )
    assert MUST_HAVE - found == set()


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_declares_is_what_its_code_does(service: str) -> None:
    declared = import_module(f"services.{service}")
    made = built(service)
    assert sorted(event.topic.name for event in made.hears) == sorted(declared.HEARS)
    assert sorted({event.topic.name for event in made.says}) == sorted(declared.SAYS)
    made_here = emitted_by(service)
    assert {event.__name__ for event in made.says} <= made_here
    # What a service makes and does not say is a command to itself, asked for over HTTP.
    assert made_here - {event.__name__ for event in made.says} <= {event.__name__ for event in made.hears}


def emitted_by(service: str) -> set[str]:
    """Event classes that the service's code constructs anywhere."""
    known = {event.__name__ for event in ALL}
    found: set[str] = set()
    for path in (ROOT / "services" / service).rglob("*.py"):
        if path.name == "app.py" or path.name == "testing.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in known:
                    found.add(name)
    return found


def test_an_events_consumers_are_those_who_hear_it() -> None:
    heard: dict[str, set[str]] = {event.type(): set() for event in ALL}
    said: dict[str, set[str]] = {event.type(): set() for event in ALL}
    for service in SERVICES:
        made = built(service)
        for event in made.hears:
            heard[event.type()].add(service)
        for event in made.says:
            said[event.type()].add(service)
    wrong = [
        f"{event.type()}: declares consumers {sorted(event.consumers)}, heard by {sorted(heard[event.type()])}"
        for event in ALL
        if set(event.consumers) - {"upstream"} != heard[event.type()]
    ]
    wrong += [
        f"{event.type()}: said by {sorted(said[event.type()])}, declares producers {sorted(event.producers)}"
        for event in ALL
        if not said[event.type()] <= set(event.producers)
    ]
    assert wrong == []


def test_the_ledger_hears_every_topic() -> None:
    ledger = next(consumer for consumer in built("policy").consumers if consumer.raw is not None)
    assert set(ledger.topics) == {event.topic.name for event in ALL}


def test_tables_belong_to_who_declares_them() -> None:
    for service in SERVICES:
        declared = set(import_module(f"services.{service}").OWNS)
        made: set[str] = set()
        for path in sorted((ROOT / "services" / service / "migrations").glob("*.sql")):
            made |= set(re.findall(r"^CREATE TABLE (?:IF NOT EXISTS )?(\w+)", path.read_text(), re.M))
        declared = {name for name in declared if "<" not in name}  # inference_log_<group> is made at run time
        assert declared <= made, f"{service} declares tables that no migration makes: {sorted(declared - made)}"


def test_sql_stands_in_sql_files() -> None:
    """No service builds a statement in Python, but for the gateway's rows, whose table is named at run time."""
    statement = re.compile(r"\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b")
    found = []
    for path in (ROOT / "services").rglob("*.py"):
        if "testing" in path.name or path.parts[-3:] == ("router", "gateway", "rows.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and statement.search(node.value):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_nothing_is_pickled() -> None:
    """No module of ours unpickles anything."""
    forbidden = re.compile(r"^\s*(import|from)\s+(pickle|cloudpickle|joblib|dill)\b", re.M)
    found = [
        str(path.relative_to(ROOT))
        for folder in ("services", "shared", "sdk", "deploy", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if forbidden.search(path.read_text())
    ]
    assert found == []


def test_routes_name_known_events() -> None:
    for service in SERVICES:
        for consumer in built(service).consumers:
            assert isinstance(consumer, Consumer)
            for route in consumer.routes:
                assert BY_TYPE[route.event.type()] is route.event


def test_the_example_pipeline_imports_nothing_of_ours() -> None:
    ours = re.compile(r"^\s*(import|from)\s+(services|shared|mintmark|deploy)\b", re.M)
    for path in (ROOT / "examples").rglob("*.py"):
        assert not ours.search(path.read_text()), f"{path} must work from outside"


def test_no_module_outgrew_its_room() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for folder in ("services", "shared", "sdk", "deploy")
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 450
    }
    assert long == {}, "a room that outgrows ~400 lines becomes a folder of the same name"


@pytest.mark.parametrize("path", sorted((ROOT / "bench").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_every_benchmark_can_at_least_be_loaded(path: Path) -> None:
    """No test runs them, so that a name that moved would be noticed by whoever measures next."""
    import_module(f"bench.{path.stem}")
