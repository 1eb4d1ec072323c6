"""What a process has loaded when it can begin: every large library that it does not use yet is time that all wait."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LARGE = (
    "aiokafka", "asyncpg", "boto3", "botocore", "cedarpy", "click", "cryptography.x509", "fastapi", "faststream",
    "graphql", "grpc", "httpx", "jinja2", "joserfc", "jsonschema", "lark", "license_expression", "lightgbm", "numpy",
    "onnxruntime", "opentelemetry.sdk", "psutil", "pyarrow", "pydantic", "pygments", "regex", "rich", "scipy",
    "sklearn", "skops", "strawberry", "typer", "wordllama", "yaml",
)  # fmt: skip

BEGINS: tuple[tuple[str, dict[str, str]], ...] = (
    ("mintmark", {}),
    ("services.router.gateway.guardrails.worker", {}),
    ("services.router.gateway.shipper.__main__", {"asyncpg": "rows go to Postgres", "pydantic": "settings, events"}),
    ("services.router.gateway.__main__", {"cedarpy": "who may ask a group"}),
    ("services.admin", {"aiokafka": "makes the topics"}),
    (
        "services.__main__",
        {"fastapi": "HTTP", "faststream": "consumers", "click": "of uvicorn, whose package imports its command line"},
    ),
    ("policy", {"joserfc": "proofs of events' authors", "cryptography.x509": "of joserfc"}),
    ("prompts", {}),
    ("evaluator", {}),
    ("deployer", {}),
    ("router", {}),
    (
        "registry",
        {
            "lark": "filters of the catalog",
            "regex": "of lark, where it is installed",
            "license_expression": "licences in effect",
            "numpy": "search, which embeds what is registered at once",
        },
    ),
    ("services.deployer.model_server.__main__", {}),
    ("deploy.local.front", {"httpx": "passes every request on"}),
    ("mintmark.cli.main", {"typer": "commands"}),
    ("deploy.local.commands", {"psutil": "finds and ends processes"}),
    ("mintmark.cli.groups", {"rich": "tables", "pygments": "of rich"}),
)
"""Modules that processes begin with, and services as `app.build` leaves them. One interpreter imports all of them in
this order, so that each may have what stands above it: whoever adds a process puts it where little is there yet."""

LOOK = """
import json, sys
from importlib import import_module

sys.modules["httpx._main"] = None  # as every `main` of ours does
large, begins = json.loads(sys.argv[1])
before = set()
for name in begins:
    if "." in name or name == "mintmark":
        import_module(name)
    else:
        from shared.testing.declared import built
        built(name)
    now = {one for one in large if sys.modules.get(one) is not None}
    print(json.dumps([name, sorted(now - before)]))
    before = now
"""


def test_a_process_begins_without_what_it_does_not_use() -> None:
    asked = json.dumps([LARGE, [name for name, _ in BEGINS]])
    done = subprocess.run([sys.executable, "-c", LOOK, asked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    unexpected = {name: more for name, may in BEGINS if (more := sorted(set(found[name]) - set(may)))}
    assert unexpected == {}, (
        "import it in the function that needs it (off the event loop: shared.late), or say in BEGINS why it is needed "
        "at once; `python -X importtime -c 'import …'` shows who brings it along"
    )


@pytest.mark.parametrize(
    "module",
    [
        "services.registry.datasets.rows",
        "services.registry.graphql.executing",
        "services.registry.handlers.parquet",
        "services.router.batches.parquet",
        "services.router.gateway.grpc_inference.server",
        "services.router.gateway.guardrails.schemas",
        "services.router.gateway.kms",
        "services.router.tables.parquet",
    ],
)
def test_what_is_imported_late_can_be_imported(module: str) -> None:
    """A schema or a table that cannot be made is found here, and not by whoever asks first."""
    import_module(module)
