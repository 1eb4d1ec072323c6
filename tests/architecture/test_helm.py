"""The chart: renders, lints, fits Kubernetes' own schemas, is closed down, and refuses bad values with the fix.

Needs neither a cluster nor a network: helm comes as a wheel and so do the schemas.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from shared.events import SERVICES

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "mintmark"
HELM = Path(sys.executable).with_name("helm")
KUBERNETES = "1.34"
PROCESSES = {*SERVICES, "gateway", "model-server"}

SMALL = {"kafka": {"bootstrap": "kafka:9092"}, "artefacts": {"volume": {"enabled": True}}}
LARGE = {
    "global": {"anything": "is allowed"},
    "image": {"repository": "registry.example.com/mintmark", "tag": "1.2.3", "pullSecrets": ["pull"]},
    "kafka": {
        "bootstrap": "b-1.example.com:9096,b-2.example.com:9096",
        "topicPrefix": "mm.",
        "partitions": 12,
        "securityProtocol": "SASL_SSL",
        "sasl": {"existingSecret": "msk"},
        "ca": {"existingSecret": "msk-ca"},
    },
    "database": {"ca": {"existingSecret": "rds-ca"}, "admin": {"existingSecret": "rds-admin"}},
    "artefacts": {"s3": {"bucket": "assets", "prefix": "mintmark", "region": "eu-west-1"}},
    "identity": {"oidc": {"issuer": "https://login.example.com"}},
    "policy": {"unverifiedAuthor": "review"},
    "evaluations": {"answersGroup": "assistant", "gatewayKey": {"existingSecret": "gateway-key"}},
    "processes": {
        "registry": {
            "replicas": 3,
            "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/registry"}},
            "env": [{"name": "MINTMARK_REGISTRY_SOURCE_BUCKETS", "value": "models"}],
        }
    },
    "ingress": {"enabled": True, "host": "mm.example.com", "gatewayHost": "models.example.com", "tlsSecret": "tls"},
    "podAnnotations": {"team": "assets"},
    "nodeSelector": {"pool": "general"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}],
}
Manifest = dict[str, Any]


def helm(tmp_path: Path, command: str, values: Manifest, *more: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    name = ["mintmark"] if command == "template" else []
    return subprocess.run(
        [str(HELM), command, *name, str(CHART), "--values", str(file), *more],
        capture_output=True,
        text=True,
        check=False,
        # An empty home: nobody's repositories, plugins or cluster play a part.
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )


def render(tmp_path: Path, values: Manifest) -> list[Manifest]:
    done = helm(tmp_path, "template", values, "--kube-version", f"{KUBERNETES}.0")
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def by_name(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"].removeprefix("mintmark-"): one for one in manifests if one["kind"] == kind}


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for one in manifests:
        if one["kind"] in ("Deployment", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["metadata"]["name"], one["spec"]


def environment(deployment: Manifest) -> dict[str, Any]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names)), "an environment variable stands twice"
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


@pytest.mark.parametrize("values", [SMALL, LARGE], ids=["small", "large"])
def test_fits_the_schemas_of_kubernetes(tmp_path: Path, values: Manifest) -> None:
    linted = helm(tmp_path, "lint", values, "--strict", "--quiet")
    assert linted.returncode == 0, linted.stdout + linted.stderr
    manifests = render(tmp_path, values)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    assert set(by_name(manifests, "Deployment")) == PROCESSES == set(by_name(manifests, "Service"))
    assert set(by_name(manifests, "Job")) == {"migrate", "topics"}
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("values", [SMALL, LARGE], ids=["small", "large"])
def test_every_pod_fits_the_restricted_standard(tmp_path: Path, values: Manifest) -> None:
    for name, spec in pod_specs(render(tmp_path, values)):
        assert spec["automountServiceAccountToken"] is False, name
        # The Services of this chart would otherwise set MINTMARK_GATEWAY_PORT and its kind to tcp://….
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            closed = container["securityContext"]
            assert closed["readOnlyRootFilesystem"] is True, name
            assert closed["allowPrivilegeEscalation"] is False, name
            assert closed["capabilities"] == {"drop": ["ALL"]}, name


def test_the_gateway_has_a_second_port_for_grpc(tmp_path: Path) -> None:
    manifests = render(tmp_path, SMALL)
    for name, service in by_name(manifests, "Service").items():
        ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
        assert ports.get("grpc") == (8711 if name == "gateway" else None), name
    gateway = by_name(manifests, "Deployment")["gateway"]
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"http": 8710, "grpc": 8711}
    assert environment(gateway)["MINTMARK_GATEWAY_GRPC_PORT"] == "8711"


def test_a_process_gets_its_own_secrets_and_nobody_elses(tmp_path: Path) -> None:
    deployments = by_name(render(tmp_path, SMALL), "Deployment")
    secrets = {
        name: {
            volume["secret"]["secretName"]
            for volume in one["spec"]["template"]["spec"]["volumes"]
            if "secret" in volume
        }
        for name, one in deployments.items()
    }
    assert secrets["policy"] == {"mintmark-keys", "mintmark-policy"}
    assert secrets["deployer"] == {"mintmark-keys", "mintmark-deployer", "mintmark-model-server"}
    assert secrets["model-server"] == {"mintmark-keys", "mintmark-model-server"}
    assert secrets["router"] == secrets["gateway"] == {"mintmark-keys", "mintmark-router"}
    assert secrets["registry"] == {"mintmark-keys", "mintmark-registry"}
    assert secrets["prompts"] == {"mintmark-keys", "mintmark-prompts"}
    others = PROCESSES - {"policy", "deployer", "model-server", "router", "gateway", "registry", "prompts"}
    assert all(secrets[name] == {"mintmark-keys"} for name in others)
    for name, one in deployments.items():
        dsns = {variable for variable in environment(one) if variable.endswith("_DSN")}
        owner = {"gateway": "ROUTER", "model-server": None}.get(name, name.upper())
        assert dsns == ({f"MINTMARK_{owner}_DSN"} if owner else set()), name
    keys = next(
        volume
        for volume in deployments["model-server"]["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "keys"
    )
    assert keys["secret"]["items"] == [{"key": "trust.json", "path": "trust.json"}]


@pytest.mark.parametrize(
    ("value", "policy", "proof", "deployer"),
    [
        ("reject", "reject", "true", "refuse"),
        ("review", "review", "false", "refuse"),
        ("allow", "allow", "false", "allow"),
    ],
)
def test_an_author_without_proof_is_refused_unless_said_otherwise(
    tmp_path: Path, value: str, policy: str, proof: str, deployer: str
) -> None:
    values = SMALL if value == "reject" else {**SMALL, "policy": {"unverifiedAuthor": value}}
    deployments = by_name(render(tmp_path, values), "Deployment")
    assert environment(deployments["policy"])["MINTMARK_POLICY_UNVERIFIED_AUTHOR"] == policy
    assert environment(deployments["registry"])["MINTMARK_REGISTRY_REQUIRE_PROOF"] == proof
    assert environment(deployments["router"])["MINTMARK_ROUTER_REQUIRE_PROOF"] == proof
    assert environment(deployments["deployer"])["MINTMARK_DEPLOYER_UNVERIFIED"] == deployer


def test_the_evaluator_knows_whom_to_ask_about_prompts(tmp_path: Path) -> None:
    asked = environment(by_name(render(tmp_path, LARGE), "Deployment")["evaluator"])
    assert asked["MINTMARK_EVALUATOR_GATEWAY_URL"].endswith("-gateway:8710")
    assert asked["MINTMARK_EVALUATOR_ANSWERS_GROUP"] == "assistant"
    assert "MINTMARK_EVALUATOR_GATEWAY_KEY" in asked
    plain = environment(by_name(render(tmp_path, SMALL), "Deployment")["evaluator"])
    assert not {"MINTMARK_EVALUATOR_ANSWERS_GROUP", "MINTMARK_EVALUATOR_GATEWAY_KEY"} & set(plain)


def test_every_setting_is_one_that_the_code_reads(tmp_path: Path) -> None:
    """A variable that nobody reads is a typing error that nobody notices."""
    from pydantic_settings import BaseSettings

    from services.deployer.settings import Settings as Deployer
    from services.evaluator.settings import Settings as Evaluator
    from services.policy.settings import Settings as Policy
    from services.prompts.settings import Settings as Prompts
    from services.registry.settings import Settings as Registry
    from services.router.gateway.settings import GatewaySettings
    from services.router.gateway.shipper.settings import ShipperSettings
    from services.router.settings import Settings as Router
    from shared.bus.transport import KafkaSettings
    from shared.identity.tokens import OidcSettings
    from shared.settings import PlatformSettings

    classes: list[type[BaseSettings]] = [
        Deployer, Evaluator, Policy, Prompts, Registry, GatewaySettings, ShipperSettings, Router,
        KafkaSettings, OidcSettings, PlatformSettings,
    ]  # fmt: skip
    known = {f"{one.model_config['env_prefix']}{field}".upper() for one in classes for field in one.model_fields} | {
        "MINTMARK_PROMPTS_DSN"
    }
    for deployment in by_name(render(tmp_path, LARGE), "Deployment").values():
        ours = {name for name in environment(deployment) if name.startswith("MINTMARK_")}
        assert ours <= known, ours - known


def test_artefacts_stand_in_one_place(tmp_path: Path) -> None:
    small, large = render(tmp_path, SMALL), render(tmp_path, LARGE)
    claim = by_name(small, "PersistentVolumeClaim")["artefacts"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not by_name(large, "PersistentVolumeClaim")
    for manifests, address in ((small, "file:///data/artefacts"), (large, "s3://assets/mintmark")):
        found = {
            name: environment(one).get("MINTMARK_ARTEFACTS") for name, one in by_name(manifests, "Deployment").items()
        }
        assert {name for name, value in found.items() if value == address} == {
            "registry",
            "prompts",
            "evaluator",
            "deployer",
            "router",
        }


def test_roles_are_made_only_with_an_administrator(tmp_path: Path) -> None:
    def command(values: Manifest) -> list[str]:
        job = by_name(render(tmp_path, values), "Job")["migrate"]
        return list(job["spec"]["template"]["spec"]["containers"][0]["command"])

    assert command(SMALL)[-1:] == ["migrate"] and "provision" not in command(SMALL)
    assert command(LARGE)[-2:] == ["provision", "migrate"]


def test_several_replicas_are_spread_and_disrupted_one_at_a_time(tmp_path: Path) -> None:
    manifests = render(tmp_path, LARGE)
    assert set(by_name(manifests, "PodDisruptionBudget")) == {"registry", "gateway"}
    account = by_name(manifests, "ServiceAccount")["registry"]
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/registry"}


def merged(base: Manifest, change: Manifest) -> Manifest:
    both = {key: base.get(key, {}) for key in {*base, *change}}
    for key, value in change.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both[key], dict) else value
    return both


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"kafka": {"bootstrap": ""}}, "--set kafka.bootstrap="),
        ({"kafka": {"securityProtocol": "SASL_SSL"}}, "set kafka.sasl.existingSecret"),
        ({"kafka": {"sasl": {"existingSecret": "user"}}}, "set kafka.securityProtocol=SASL_SSL"),
        ({"artefacts": {"volume": {"enabled": False}}}, "set artefacts.s3.bucket, or artefacts.volume.enabled=true"),
        ({"artefacts": {"s3": {"bucket": "assets"}}}, "not both"),
        ({"processes": {"model-server": {"replicas": 2}}}, "leave it at 1"),
        ({"ingress": {"enabled": True}}, "--set ingress.host="),
        ({"identity": {"keys": {"existingSecret": ""}}}, "python -m deploy.secrets"),
        # and by the schema
        ({"kafka": {"bootstrap": "http://kafka:9092"}}, "kafka.bootstrap"),
        ({"policy": {"unverifiedAuthor": "ignore"}}, "unverifiedAuthor"),
        ({"processes": {"registry": {"replica": 2}}}, "replica"),
        ({"processes": {"registri": {"replicas": 2}}}, "registri"),
        ({"typing": "error"}, "typing"),
    ],
)
def test_bad_values_are_refused_with_the_fix(tmp_path: Path, change: Manifest, fix: str) -> None:
    done = helm(tmp_path, "template", merged(SMALL, change))
    assert done.returncode != 0
    assert fix in done.stderr, done.stderr


def test_the_default_values_say_what_is_missing(tmp_path: Path) -> None:
    done = helm(tmp_path, "template", {})
    assert "kafka.bootstrap is empty" in done.stderr
