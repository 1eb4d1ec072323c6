"""The groups as a gateway serves them: immutable, swapped whole, and never with an unproven version among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.router.domain import Buckets, Challenger, Group, UnitRule, Version, bucket_of, log_table, withdrawn
from services.router.errors import ApprovalRefused
from shared.errors import Refused
from shared.identity.dsse import Envelope, verify

APPROVAL_MEDIA_TYPE = "application/vnd.mintmark.approval+json"

TrustedKeys = Mapping[str, Ed25519PublicKey]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model server listens; one pool of connections each."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A version that may be served, and the heads of the requests to it, rendered once."""

    version: Version
    endpoint: Endpoint
    model_path: str
    infer_head: bytes
    features: tuple[str, ...] = ()
    """Names of the model's inputs, in the order of its SHAP values."""

    @staticmethod
    def at(version: Version, url: str, model_name: str, features: tuple[str, ...] = ()) -> Target:
        """Raises ApprovalRefused when `url` is no http(s) base URL that a request line can be made of.

        Requests name the version, because a model server may hold several under one name.
        """
        parts = urlsplit(url)
        path = f"{parts.path.rstrip('/')}/v2/models/{model_name}/versions/{version.version}"
        if parts.scheme not in ("http", "https") or not parts.hostname or not _is_plain(path + parts.netloc):
            raise ApprovalRefused(f"{version} has no usable endpoint: {url[:200]!r} is not a plain http(s) base URL.")
        tls = parts.scheme == "https"
        endpoint = Endpoint(parts.hostname, parts.port or (443 if tls else 80), tls)
        host = parts.netloc.rpartition("@")[2]
        head = f"POST {path}/infer HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n".encode()
        return Target(version, endpoint, path, head, features)

    def get(self, suffix: str = "") -> bytes:
        """A whole GET request for the model's metadata or, with `/ready`, its readiness."""
        host = f"{self.endpoint.host}:{self.endpoint.port}"
        return f"GET {self.model_path}{suffix} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()


@dataclass(frozen=True, slots=True)
class Route:
    """A group with the target behind each of its versions; None where the version is not servable."""

    group: Group
    log_table: str
    targets: tuple[Target | None, ...]
    refusals: tuple[Refusal, ...] = ()
    """Why versions of this group are not servable."""

    def why_not(self, version: Version) -> str:
        """The sentence that says why a version has no target."""
        reasons = (refusal.reason for refusal in self.refusals if refusal.version == version)
        return next(reasons, f"{version} has no verified approval or endpoint.")

    def target_of(self, unit: str) -> tuple[Version, Target | None]:
        """Who should serve the unit, and where. A challenger that may not be served gives way to the champion."""
        arm = self.group.arm_of_bucket[bucket_of(self.group.name, unit)]
        if self.targets[arm] is None:
            arm = 0
        return self.group.versions[arm], self.targets[arm]


@dataclass(frozen=True, slots=True)
class Approval:
    """What a signed approval says it is about."""

    workspace: str
    version: Version


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that was left out, with the sentence that says why."""

    version: Version
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    stamp: str = ""
    routes: Mapping[str, Route] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        return frozenset(target.endpoint for route in self.routes.values() for target in route.targets if target)

    def near(self, name: str, workspace: str) -> tuple[str, ...]:
        """Up to three groups of the workspace with names like this one."""
        names = [route.group.name for route in self.routes.values() if route.group.workspace == workspace]
        return tuple(get_close_matches(name, names, n=3, cutoff=0.6))


class SnapshotBuilder:
    """Builds snapshots from rows; remembers which statements it has verified, since Ed25519 costs 0.1 ms each."""

    def __init__(self, trusted: TrustedKeys) -> None:
        self._trusted = trusted
        self._verified: dict[str, Approval] = {}

    def build(self, stamp: str, groups: Iterable[Mapping[str, Any]], versions: Iterable[Mapping[str, Any]]) -> Snapshot:
        """A snapshot of `snapshot_groups` and `snapshot_versions` rows (queries.sql). JSON columns are texts."""
        targets: dict[tuple[str, Version], Target] = {}
        refusals: dict[tuple[str, Version], Refusal] = {}
        verified: dict[str, Approval] = {}
        for row in versions:
            version = Version(row["urn"], row["version"], row["digest"])
            if row["withdrawn_at"] is not None:
                reason = withdrawn(version, row["withdrawn_at"], row["withdrawn_why"])
                refusals[row["workspace"], version] = Refusal(version, reason)
                continue
            try:
                statement = row["statement"]
                verified[statement] = self._verified.get(statement) or verified_approval(statement, self._trusted)
                require_bound(row["workspace"], version, verified[statement])
                signature = orjson.loads(row["signature"])
                features = tuple(str(tensor["name"]) for tensor in signature.get("inputs", ()))
                targets[row["workspace"], version] = Target.at(version, row["endpoint"], row["model_name"], features)
            except Refused as refused:
                refusals[row["workspace"], version] = Refusal(version, refused.message)
        self._verified = verified
        routes: dict[str, Route] = {}
        for row in groups:
            group = group_of(row)
            own = [(group.workspace, version) for version in group.versions]
            why = tuple(refusals[name] for name in own if name in refusals)
            routes[group.name] = Route(group, log_table(group.name), tuple(targets.get(name) for name in own), why)
        return Snapshot(stamp, routes, tuple(refusals.values()))


def group_of(row: Mapping[str, Any]) -> Group:
    """A `snapshot_groups` row as the domain's Group."""
    challengers = tuple(
        Challenger(
            Version(entry["urn"], entry["version"], entry["digest"]),
            Buckets(tuple((start, end) for start, end in entry["buckets"])),
        )
        for entry in orjson.loads(row["challengers"])
    )
    return Group(
        name=row["name"],
        workspace=row["workspace"],
        revision=row["revision"],
        champion=Version(row["champion_urn"], row["champion_version"], row["champion_digest"]),
        challengers=challengers,
        unit_rule=UnitRule(row["unit_header"], row["unit_body_id"]),
    )


def verified_approval(statement: str, trusted: TrustedKeys) -> Approval:
    """What the approval's DSSE envelope binds to, once its signature held. Raises SignatureRefused, ApprovalRefused.

    An approval that expired since does not end traffic: expiry bounds deploying and promoting, and taking a champion
    away at midnight would be an outage that nobody decided.
    """
    payload = verify(Envelope.from_json(statement.encode()), trusted, APPROVAL_MEDIA_TYPE)
    try:
        said = orjson.loads(payload)
        asset = said["asset"]
        if (said["type"], said["decision"]) != ("approval", "approved"):
            raise ApprovalRefused("The signed statement does not approve anything.")
        return Approval(str(said["workspace"]), Version(asset["urn"], asset["version"], asset["digest"]))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ApprovalRefused("The approval is signed, but of another form than this gateway reads.") from error


def require_bound(workspace: str, version: Version, approval: Approval) -> None:
    """Raises ApprovalRefused unless the approval speaks of this very version and digest, in this workspace."""
    approved = approval.version
    if (approved.urn, approved.version) != (version.urn, version.version):
        raise ApprovalRefused(f"The approval is of {approved}, not of {version}.")
    if approved.digest != version.digest:
        raise ApprovalRefused(
            f"The approval of {approved} binds to {approved.digest}, but what is deployed is {version.digest}."
        )
    if approval.workspace != workspace:
        raise ApprovalRefused(f"The approval of {approved} is one of workspace {approval.workspace}, not {workspace}.")


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
