"""The platform's own processes on one machine: which there are, what each is given, and when it is ready."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local import broker, cluster
from deploy.local.credentials import SERVICES
from deploy.local.identity import Keys, inherited_environment
from deploy.local.infrastructure import Infrastructure
from deploy.local.ports import HOST, Ports, is_listening

MODEL_SERVER = "model-server"
PARTITIONS = "3"
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime would note down a device id and report on itself."""
LOOPBACK = "127.0.0.1,::1"
"""Where providers may be beside the public internet: servers of this very machine (docs/decisions/provider-keys.md)."""
READY_WITHIN_S = 180.0
STOP_WITHIN_S = 25.0
"""Longer than the 10 s that a service takes for its requests plus the 10 s for its outbox."""


@dataclass(frozen=True)
class Program:
    """One process to run: its name in `status` and `logs`, its command, port and environment."""

    name: str
    command: tuple[str, ...]
    port: int
    environment: dict[str, str]


def programs(infrastructure: Infrastructure, keys: Keys, *, separate: bool) -> list[Program]:
    """Everything that `mintmark up` runs beside Kafka and PostgreSQL."""
    services = _separate(infrastructure, keys) if separate else [_together(infrastructure, keys)]
    gateway = [_shipper(infrastructure, keys), _gateway(infrastructure, keys)]
    return [_model_server(infrastructure, keys), *services, *gateway]


def is_ready(name: str, port: int) -> bool:
    """True when the process answers as one that can be used."""
    if name == broker.NAME:
        return broker.describes_itself(port)
    if name == cluster.NAME:
        return is_listening(port)
    connection = http.client.HTTPConnection(HOST, port, timeout=broker.ANSWER_WITHIN_S)
    try:
        connection.request("GET", "/v2/health/ready" if name == MODEL_SERVER else "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def addresses(ports: Ports) -> dict[str, str]:
    """Where a person or a client finds this installation."""
    return {
        "MINTMARK_URL": f"http://{HOST}:{ports.front}",
        "MINTMARK_GATEWAY_URL": f"http://{HOST}:{ports.gateway}",
        "MINTMARK_GATEWAY_GRPC_URL": f"{HOST}:{ports.grpc}",
        "MINTMARK_KAFKA_BOOTSTRAP": f"{HOST}:{ports.kafka}",
    }


def _together(infrastructure: Infrastructure, keys: Keys) -> Program:
    port = infrastructure.ports.front
    return Program(
        name="services",
        command=(sys.executable, "-m", "services", "--host", HOST, "--port", str(port)),
        port=port,
        environment=_environment(infrastructure, keys, SERVICES),
    )


def _separate(infrastructure: Infrastructure, keys: Keys) -> list[Program]:
    """A process a service, each with its own DSN only, and a front that hands each request to the right one."""
    front = infrastructure.ports.front
    ports = {name: infrastructure.ports.as_dict()[name] for name in SERVICES}
    services = [
        Program(
            name=name,
            command=(sys.executable, "-m", "services", name, "--host", HOST, "--port", str(port)),
            port=port,
            environment=_environment(infrastructure, keys, [name]),
        )
        for name, port in ports.items()
    ]
    routes = [f"{name}={HOST}:{port}" for name, port in ports.items()]
    proxy = Program(
        name="front",
        command=(sys.executable, "-m", "deploy.local.front", "--host", HOST, "--port", str(front), *routes),
        port=front,
        environment=inherited_environment(),
    )
    return [*services, proxy]


def _gateway(infrastructure: Infrastructure, keys: Keys) -> Program:
    port = infrastructure.ports.gateway
    return Program(
        name="gateway",
        command=(sys.executable, "-m", "services.router.gateway"),
        port=port,
        environment={
            **_environment(infrastructure, keys, ["router"]),
            "MINTMARK_GATEWAY_HOST": HOST,
            "MINTMARK_GATEWAY_PORT": str(port),
            "MINTMARK_GATEWAY_GRPC_PORT": str(infrastructure.ports.grpc),
        },
    )


def _shipper(infrastructure: Infrastructure, keys: Keys) -> Program:
    """Takes what the gateway spools in the data folder into PostgreSQL."""
    port = infrastructure.ports.shipper
    return Program(
        name="shipper",
        command=(sys.executable, "-m", "services.router.gateway.shipper"),
        port=port,
        environment={
            **_environment(infrastructure, keys, ["router"]),
            "MINTMARK_SHIPPER_HOST": HOST,
            "MINTMARK_SHIPPER_PORT": str(port),
        },
    )


def _model_server(infrastructure: Infrastructure, keys: Keys) -> Program:
    """The deployer's local target. It gets no database and no API keys: it needs neither."""
    port = infrastructure.ports.model_server
    options = {
        "--repository": infrastructure.folder.root / "models",
        "--trust": keys.trust,
        "--token-file": keys.model_server_token,
        "--host": HOST,
        "--port": port,
    }
    return Program(
        name=MODEL_SERVER,
        command=(
            sys.executable,
            "-m",
            "services.deployer.model_server",
            *(str(part) for option in options.items() for part in option),
        ),
        port=port,
        environment={**inherited_environment(), **QUIET},
    )


def _environment(infrastructure: Infrastructure, keys: Keys, services: Sequence[str]) -> dict[str, str]:
    """What the named services may know; nobody gets the admin's DSN, and a signing key goes to its signer alone."""
    root: Path = infrastructure.folder.root
    variables = {
        **inherited_environment(),
        **QUIET,
        **addresses(infrastructure.ports),
        "MINTMARK_HOST": HOST,
        "MINTMARK_PORT": str(infrastructure.ports.front),
        "MINTMARK_DATA": str(root),
        "MINTMARK_ARTEFACTS": infrastructure.folder.artefacts.as_uri(),
        "MINTMARK_KAFKA_PARTITIONS": PARTITIONS,
        "MINTMARK_KEYS_FILE": str(keys.api_keys),
        "MINTMARK_TRUST_FILE": str(keys.trust),
    }
    for service in services:
        variables[f"MINTMARK_{service.upper()}_DSN"] = infrastructure.dsns[service]
    if "router" in services:
        variables["MINTMARK_ROUTER_MASTER_KEY_FILE"] = str(keys.master_key)
        variables["MINTMARK_ROUTER_SIGNING_KEY_FILE"] = str(keys.signing_key("router"))
        variables.setdefault("MINTMARK_ROUTER_PROVIDER_NETWORKS", LOOPBACK)
    if "registry" in services:
        variables["MINTMARK_REGISTRY_SIGNING_KEY_FILE"] = str(keys.signing_key("registry"))
    if "prompts" in services:
        variables["MINTMARK_PROMPTS_SIGNING_KEY_FILE"] = str(keys.signing_key("prompts"))
    if "evaluator" in services:
        variables.setdefault("MINTMARK_EVALUATOR_GATEWAY_URL", variables["MINTMARK_GATEWAY_URL"])
    if "policy" in services:
        variables["MINTMARK_POLICY_SIGNING_KEY_FILE"] = str(keys.signing_key("policy"))
    if "deployer" in services:
        variables["MINTMARK_DEPLOYER_SIGNING_KEY_FILE"] = str(keys.signing_key("deployer"))
        variables["MINTMARK_DEPLOYER_MODEL_SERVER_URL"] = f"http://{HOST}:{infrastructure.ports.model_server}"
        variables["MINTMARK_DEPLOYER_MODEL_SERVER_TOKEN_FILE"] = str(keys.model_server_token)
    return variables
