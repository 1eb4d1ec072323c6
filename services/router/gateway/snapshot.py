"""The groups as a gateway serves them: immutable, swapped whole, and never with an unproven version among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any, ClassVar
from urllib.parse import urlsplit

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.router.domain import (
    Buckets,
    Challenger,
    Group,
    Hosted,
    UnitRule,
    Version,
    bucket_of,
    hosted_of,
    withdrawn,
)
from services.router.errors import ApprovalRefused, SealBroken
from services.router.gateway.addresses import BaseUrl
from services.router.gateway.minimisation import Minimiser
from services.router.gateway.minimisation.keys import GroupKeyRing, GroupKeys
from services.router.gateway.providers import Upstream, provider_of
from services.router.gateway.providers.configuration import upstream_of
from services.router.gateway.rows import served_by, text
from services.router.gateway.sealing import Belonging, KeyRing, MasterKey, Sealed, Sealer, Secret
from services.router.gateway.spool.format import address
from services.router.group_settings import GroupSettings, Rows
from shared.errors import MintmarkError, Refused
from shared.identity.dsse import Envelope, verify

APPROVAL_MEDIA_TYPE = "application/vnd.mintmark.approval+json"

TrustedKeys = Mapping[str, Ed25519PublicKey]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model server or a provider listens; one pool of connections each."""

    host: str
    port: int
    tls: bool
    is_foreign: bool = False
    """A provider's: its address is looked up and judged at each connection (addresses.py)."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a model's signature; an empty datatype or shape says nothing."""

    datatype: str = ""
    shape: tuple[int, ...] = ()
    known: dict[tuple[Any, ...], tuple[int, frozenset[type]]] = field(default_factory=dict, compare=False)
    """Datatypes with shapes that were found to fit, with how many values of which types they need; bounded."""


@dataclass(frozen=True, slots=True)
class Target:
    """A version that may be served, and the heads of the requests to it, rendered once."""

    version: Version
    endpoint: Endpoint
    model_path: str
    infer_head: bytes
    stream_head: bytes
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    """Names of the model's inputs, in the order of its SHAP values."""
    feature_names: frozenset[str] = frozenset()

    @staticmethod
    def at(version: Version, url: str, model_name: str, inputs: Mapping[str, Tensor] | None = None) -> Target:
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
        head = "POST {}/{} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n"
        infer, stream = (head.format(path, verb, host).encode() for verb in ("infer", "generate_stream"))
        inputs = inputs or {}
        return Target(version, endpoint, path, infer, stream, inputs, tuple(inputs), frozenset(inputs))

    def get(self, suffix: str = "") -> bytes:
        """A whole GET request for the model's metadata or, with `/ready`, its readiness."""
        host = f"{self.endpoint.host}:{self.endpoint.port}"
        return f"GET {self.model_path}{suffix} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()


@dataclass(frozen=True, slots=True)
class ProviderTarget:
    """A version that a provider answers for, and the key by which it is asked, if it needs one."""

    version: Version
    endpoint: Endpoint
    upstream: Upstream
    secret: Secret | None = field(repr=False)
    feature_names: ClassVar[frozenset[str]] = frozenset()

    @staticmethod
    def of(hosted: Hosted, configuration: Mapping[str, Any], secret: Secret | None) -> ProviderTarget:
        """Raises FieldRefused, AddressRefused."""
        upstream = upstream_of({**configuration, "model": hosted.model})
        base = BaseUrl.parse(upstream.base_url or provider_of(upstream).default_base(upstream))
        return ProviderTarget(hosted.version, Endpoint(base.host, base.port, base.tls, True), upstream, secret)


Served = Target | ProviderTarget


@dataclass(frozen=True, slots=True)
class Arm:
    """A version as it serves a group, with what each of its answers and rows says of it, rendered once."""

    version: Version
    target: Served | None
    name: str
    columns: bytes
    header_lines: bytes
    objection: str = ""
    """Why there is no target."""

    @staticmethod
    def of(group: Group, version: Version, target: Served | None, refusal: Refusal | None = None) -> Arm:
        name = str(version)
        role = "champion" if version == group.champion else "challenger"
        columns = served_by(version.urn, version.version, version.digest, role)
        objection = "" if target else refusal.reason if refusal else f"{version} has no verified approval or endpoint."
        return Arm(version, target, name, columns, _lines(group.name, name), objection)


@dataclass(frozen=True, slots=True)
class Route:
    """A group with its arms, the champion first; a target is None where the version is not servable."""

    group: Group
    arms: tuple[Arm, ...]
    drops_rows: bool
    """What the group chose for a full spool: an answer without a row."""
    unit_header: bytes
    address: bytes
    workspace_column: bytes
    header_lines: bytes
    created: datetime
    minimiser: Minimiser | None = None

    @staticmethod
    def of(
        group: Group,
        arms: tuple[Arm, ...],
        created: datetime,
        settings: GroupSettings,
        keys: GroupKeys,
    ) -> Route:
        """Whatever a request may need of the settings is made here, once; None where the group has nothing of it."""
        return Route(
            group=group,
            arms=arms,
            drops_rows=settings.of(Rows).when_spool_full == "drop",
            unit_header=group.unit_rule.header.lower().encode(),
            address=address(group.workspace, group.name),
            workspace_column=text(group.workspace),
            header_lines=_lines(group.name, "none"),
            created=created,
            minimiser=Minimiser.of(settings.of(Rows), keys),
        )

    @property
    def champion(self) -> Arm:
        return self.arms[0]

    def arm_of(self, unit: str) -> Arm:
        """Who should serve the unit. A challenger that may not be served gives way to the champion."""
        arm = self.arms[self.group.arm_of_bucket[bucket_of(self.group.name, unit)]]
        return arm if arm.target is not None else self.arms[0]


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
    broken: tuple[str, ...] = ()
    """Providers' keys that could not be opened: to be tried again."""

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        targets = (arm.target for route in self.routes.values() for arm in route.arms)
        return frozenset(target.endpoint for target in targets if target is not None)

    def near(self, name: str, workspace: str) -> tuple[str, ...]:
        """Up to three groups of the workspace with names like this one."""
        names = [route.group.name for route in self.routes.values() if route.group.workspace == workspace]
        return tuple(get_close_matches(name, names, n=3, cutoff=0.6))


class SnapshotBuilder:
    """Builds snapshots from rows; remembers which statements it has verified, since Ed25519 costs 0.1 ms each."""

    def __init__(self, trusted: TrustedKeys, master: MasterKey | None = None) -> None:
        self._trusted = trusted
        self._keys = KeyRing(Sealer(master)) if master is not None else None
        self._group_keys = GroupKeyRing(master)
        self._verified: dict[str, Approval] = {}

    def build(
        self,
        stamp: str,
        groups: Iterable[Mapping[str, Any]],
        versions: Iterable[Mapping[str, Any]],
        providers: Iterable[Mapping[str, Any]] = (),
    ) -> Snapshot:
        """A snapshot of the `snapshot_…` rows (queries.sql). JSON columns are texts. Blocks: a KMS may be asked."""
        found = {(row["workspace"], row["name"]): row for row in providers}
        broken = self._open(found)
        targets: dict[tuple[str, Version], Served] = {}
        refusals: dict[tuple[str, Version], Refusal] = {}
        verified: dict[str, Approval] = {}
        for row in versions:
            version = Version(row["urn"], row["version"], row["digest"])
            if row["withdrawn_at"] is not None:
                reason = withdrawn(version, _moment(row["withdrawn_at"]), row["withdrawn_why"])
                refusals[row["workspace"], version] = Refusal(version, reason)
                continue
            try:
                statement = row["statement"]
                verified[statement] = self._approval(statement)
                require_bound(row["workspace"], version, verified[statement])
                targets[row["workspace"], version] = Target.at(
                    version, row["endpoint"], row["model_name"], _inputs(row["signature"])
                )
            except Refused as refused:
                refusals[row["workspace"], version] = Refusal(version, refused.message)
        routes: dict[str, Route] = {}
        refused_here: list[Refusal] = []
        for row in groups:
            group = group_of(row)
            arms: list[Arm] = []
            for version in group.versions:
                target, refusal = targets.get((group.workspace, version)), refusals.get((group.workspace, version))
                hosted = group.host_of(version.urn, version.version)
                if hosted is not None:
                    target, refusal = None, None
                    try:
                        verified[hosted.statement] = self._approval(hosted.statement)
                        require_bound(group.workspace, version, verified[hosted.statement])
                        target = self._provided(group.workspace, hosted, found)
                    except MintmarkError as refused:
                        refusal = Refusal(version, refused.message)
                        refused_here.append(refusal)
                arms.append(Arm.of(group, version, target, refusal))
            settings = GroupSettings(orjson.loads(row.get("settings") or "{}"))  # not in older kept snapshots
            keys = self._group_keys.keys_of(group.workspace, group.name, orjson.loads(row.get("keys") or "{}"))
            routes[group.name] = Route.of(group, tuple(arms), _moment(row["created_at"]), settings, keys)
        self._verified = verified
        return Snapshot(stamp, routes, (*refusals.values(), *refused_here), broken)

    def _approval(self, statement: str) -> Approval:
        return self._verified.get(statement) or verified_approval(statement, self._trusted)

    def _open(self, providers: Mapping[tuple[str, str], Mapping[str, Any]]) -> tuple[str, ...]:
        """Open the providers' keys; returns what could not be opened."""
        if self._keys is None:
            return ()
        sealed: dict[Belonging, Sealed] = {}
        broken: list[str] = []
        for (workspace, name), row in providers.items():
            try:
                if row["sealed"] is not None:
                    sealed[Belonging(workspace, name)] = Sealed.from_json(row["sealed"])
            except SealBroken as error:
                broken.append(f"{name}: {error.message}")
        broken.extend(f"{of.provider}: {error.message}" for of, error in self._keys.take(sealed).items())
        return tuple(broken)

    def _provided(
        self, workspace: str, hosted: Hosted, providers: Mapping[tuple[str, str], Mapping[str, Any]]
    ) -> ProviderTarget:
        """Raises ApprovalRefused, SealBroken, FieldRefused, AddressRefused."""
        row = providers.get((workspace, hosted.provider))
        if row is None:
            raise ApprovalRefused(f"{hosted.version} is asked of the provider {hosted.provider!r}, which is not there.")
        secret = None
        if row["sealed"] is not None:
            if self._keys is None:
                raise SealBroken(
                    "This gateway has no master key to open a key with: set MINTMARK_ROUTER_MASTER_KEY_FILE."
                )
            secret = self._keys.secret_of(Belonging(workspace, hosted.provider))
        return ProviderTarget.of(hosted, orjson.loads(row["configuration"]), secret)


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
        hosted=hosted_of(orjson.loads(row["hosted"])),
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


def _moment(value: datetime | str) -> datetime:
    """A text where the snapshot was kept in a file."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _inputs(signature: str) -> dict[str, Tensor]:
    """The inputs that a version's signature names, in its order."""
    return {
        str(tensor["name"]): Tensor(str(tensor.get("datatype") or ""), tuple(tensor.get("shape") or ()))
        for tensor in orjson.loads(signature).get("inputs", ())
    }


def _lines(group: str, version: str) -> bytes:
    return f"x-mintmark-group: {group}\r\nx-mintmark-version: {version}\r\n".encode()


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
