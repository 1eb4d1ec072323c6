"""The gateway's wiring: which path goes where, what starts with it, and how it ends without losing a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson

from services.router.errors import GroupUnreadable, MethodNotAllowed, UnknownGroup, UpstreamGarbageError, VersionPinned
from services.router.gateway.access import Access
from services.router.gateway.addresses import Permitted, Resolver
from services.router.gateway.approvals import TrustedKeys
from services.router.gateway.arms import ProviderTarget, Target
from services.router.gateway.chat import Chat
from services.router.gateway.http_server import (
    JSON_HEADER,
    HttpServer,
    Limits,
    Request,
    refuse,
)
from services.router.gateway.judge import Judges
from services.router.gateway.metrics import Metrics
from services.router.gateway.oip import GenerateStream, OpenInference
from services.router.gateway.protecting import Protecting
from services.router.gateway.protocols import CHAT, MESSAGES, PATHS, credentials, protocol_of, status_of
from services.router.gateway.protocols.models import GroupListing, model, models_page
from services.router.gateway.pursuit.health import Prober
from services.router.gateway.pursuit.memory import Memories
from services.router.gateway.rows import asked_by
from services.router.gateway.sealing import master_key_of
from services.router.gateway.settings import GatewaySettings
from services.router.gateway.shadows import Shadows
from services.router.gateway.snapshot import Route, Snapshot, SnapshotBuilder
from services.router.gateway.snapshot_source import SnapshotSource
from services.router.gateway.spool.writer import SpoolWriter
from services.router.gateway.tickets import Tickets
from services.router.gateway.translator import Translate
from services.router.gateway.upstream import Caller, Headers, Pools
from services.router.gateway.warded import exchange_of
from shared.clock import Clock, utc_now
from shared.db.database import Database
from shared.errors import MintmarkError, NotFound
from shared.identity import Principal
from shared.identity.identity import Identity

if TYPE_CHECKING:
    from services.router.gateway.grpc_inference.server import GrpcServer

log = logging.getLogger(__name__)

MODELS = b"/v2/models/"
V1 = b"/v1/"
V1_MODELS = b"/v1/models"
TRANSLATORS: dict[bytes, Translate] = {b"infer": OpenInference, b"generate_stream": GenerateStream}
"""What is asked of a group by POST below /v2/models/{group}/."""


class Gateway:
    """One data plane process. `trusted` holds only the keys that may sign approvals."""

    def __init__(
        self, settings: GatewaySettings, identity: Identity, trusted: TrustedKeys, *, clock: Clock = utc_now
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = Metrics()
        self.snapshot: Snapshot | None = None
        resolver = Resolver(Permitted.of(settings.provider_networks.split(",")))
        self.pools = Pools(
            settings.upstream_connections, settings.provider_connections, settings.response_bytes, resolver
        )
        self.memories = self.metrics.memories = Memories()
        self.shadows = Shadows(self)
        self._prober = Prober(self.pools, self.memories)
        database = Database(settings.dsn, "router")
        self.rows = SpoolWriter(settings.spool_folder, self.metrics, settings.spool_limits)
        self.protection = Protecting(database, self.rows, self.metrics, self._now, Judges(self).ask)
        self.suspicions = self.protection.suspicions
        master = master_key_of(settings.master_key_file, settings.master_key_kms)
        self._access = Access(identity, Tickets(master, clock) if master is not None else None)
        self._identifying: set[asyncio.Task[None]] = set()
        self._source = SnapshotSource(
            database,
            SnapshotBuilder(trusted, master),
            self._take,
            kept=settings.snapshot_file,
            poll_s=settings.poll_s,
        )
        limits = Limits(settings.request_bytes, settings.read_timeout_s, settings.idle_timeout_s, settings.connections)
        self.asked_by = lru_cache(maxsize=10_000)(asked_by)
        self._server = HttpServer(self._handle, limits)
        self._grpc = self._over_grpc() if settings.grpc_port is not None else None
        self.grpc_port: int | None = None
        """Where gRPC is served, once started; None where it is off."""
        self._plain: dict[bytes, Callable[[Request], None]] = {
            b"/livez": self._live,
            b"/v2/health/live": self._live,
            b"/readyz": self._ready,
            b"/v2/health/ready": self._ready,
            b"/metrics": self._render_metrics,
            b"/v2": self._describe,
        }

    def _over_grpc(self) -> GrpcServer:
        from services.router.gateway.grpc_inference.server import GrpcLimits, GrpcServer  # grpc is large

        limits = GrpcLimits(self.settings.request_bytes, self.settings.response_bytes, self.settings.connections)
        return GrpcServer(self._handle, self._infer, limits)

    async def start(self) -> int:
        """Listen and serve; returns the port. Ready once a snapshot is in, from Postgres or as it was kept."""
        await self.rows.start()
        self.protection.start()
        await self._source.start()
        port = await self._server.start(self.settings.host, self.settings.port, reuse_port=self.settings.reuse_port)
        if self._grpc is not None and self.settings.grpc_port is not None:
            self.grpc_port = await self._grpc.start(
                self.settings.host, self.settings.grpc_port, reuse_port=self.settings.reuse_port
            )
        log.info("gateway listens", extra={"host": self.settings.host, "port": port, "grpc_port": self.grpc_port})
        return port

    async def stop(self) -> None:
        """Stop accepting, answer what is in flight, flush its rows, end."""
        draining = [self._grpc.drain(self.settings.drain_s)] if self._grpc is not None else []
        drained, *_ = await asyncio.gather(self._server.drain(self.settings.drain_s), *draining)
        if not drained:
            log.error("requests were still in flight after the drain time", extra={"drain_s": self.settings.drain_s})
        await self.shadows.drain(self.settings.drain_s)
        self._prober.stop()
        await self._source.stop()
        await self.rows.stop()
        await self.protection.stop()
        self.pools.keep_only(())

    def _take(self, snapshot: Snapshot) -> None:
        """Swap the snapshot whole. Requests in flight keep the route that they were given."""
        self.snapshot = snapshot
        self.pools.keep_only(snapshot.endpoints)
        self.memories.take(
            {name: (one.routing, one.targets) for name, one in snapshot.routes.items() if one.routing is not None}
        )
        self._prober.take(snapshot.routes)
        self.metrics.snapshot_taken(len(snapshot.routes), len(snapshot.refusals), len(snapshot.unread))
        self.protection.warm(route.protection for route in snapshot.routes.values())

    def _now(self) -> float:
        return self.clock().timestamp()

    # -- paths

    def _handle(self, request: Request) -> None:
        """Answer the request, now or later; whatever goes wrong is an answer too."""
        path = request.path.partition(b"?")[0]
        try:
            if path.startswith(MODELS):
                self._handle_model(request, path[len(MODELS) :])
                return
            if path.startswith(V1):
                self._handle_v1(request, path)
                return
            answer = self._plain.get(path)
            if answer is None:
                raise NotFound("There is no such path; the gateway serves /v2/models/{group}/infer.")
            _require_method(request, b"GET")
            answer(request)
        except MintmarkError as error:
            refuse(request, error)
        except Exception:
            log.exception("unexpected error", extra={"path": path.decode("latin-1")})
            refuse(request, MintmarkError())

    def _handle_model(self, request: Request, path: bytes) -> None:
        authorization = request.headers.get(b"authorization", b"")
        principal = self._access.recall(authorization)
        if principal is not None:
            self._handle_admitted(request, path, principal)
            return
        self._begin_identifying(self._identify(request, path, authorization))

    async def _infer(self, request: Request, group: str, translate: Translate) -> None:
        """Begin an exchange for a request that came otherwise. Raises Unauthenticated, Forbidden, UnknownGroup."""
        authorization = credentials(request.headers)
        principal = self._access.recall(authorization) or await self._access.identify(authorization)
        route = self._route(principal, group.encode("ascii", "replace"))
        exchange_of(self, request, route, translate(request), principal).begin()

    def _begin_identifying(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._identifying.add(task)
        task.add_done_callback(self._identifying.discard)

    async def _identify(self, request: Request, path: bytes, authorization: bytes) -> None:
        try:
            self._handle_admitted(request, path, await self._access.identify(authorization))
        except MintmarkError as error:
            refuse(request, error)
        except Exception:
            log.exception("unexpected error", extra={"path": path.decode("latin-1")})
            refuse(request, MintmarkError())

    # -- OpenAI's and Anthropic's protocols

    def _handle_v1(self, request: Request, path: bytes) -> None:
        try:
            authorization = credentials(request.headers)
            principal = self._access.recall(authorization)
            if principal is None:
                self._begin_identifying(self._identify_v1(request, path, authorization))
            else:
                self._handle_admitted_v1(request, path, principal)
        except MintmarkError as error:
            _refuse_v1(request, path, error)
        except Exception:
            log.exception("unexpected error", extra={"path": path.decode("latin-1")})
            _refuse_v1(request, path, MintmarkError())

    async def _identify_v1(self, request: Request, path: bytes, authorization: bytes) -> None:
        try:
            self._handle_admitted_v1(request, path, await self._access.identify(authorization))
        except MintmarkError as error:
            _refuse_v1(request, path, error)
        except Exception:
            log.exception("unexpected error", extra={"path": path.decode("latin-1")})
            _refuse_v1(request, path, MintmarkError())

    def _handle_admitted_v1(self, request: Request, path: bytes, principal: Principal) -> None:
        """`model` is the group's name. What is refused before the group is known is no row."""
        text = path.decode("latin-1")
        protocol = protocol_of(text)
        if protocol is not None:
            _require_method(request, b"POST")
            asked = protocol.open(request.body, text)
            asked.api_version = request.headers.get(b"anthropic-version", b"").decode("latin-1")
            asked.features = request.headers.get(b"anthropic-beta", b"").decode("latin-1")
            route = self._route(principal, asked.model.encode("ascii", "replace"))
            exchange_of(self, request, route, Chat(asked), principal).begin()
        elif path == V1_MODELS:
            _require_method(request, b"GET")
            self._access.require_inference(principal)
            query = request.path.partition(b"?")[2]
            _answer_bytes(request, 200, models_page(self._listing(principal), request.headers, query))
        elif path.startswith(V1_MODELS + b"/"):
            _require_method(request, b"GET")
            route = self._route(principal, path[len(V1_MODELS) + 1 :])
            _answer_bytes(request, 200, model(GroupListing(route.group.name, route.created), request.headers))
        else:
            raise NotFound(f"There is no such path; the gateway serves {', '.join(PATHS)} and /v1/models.")

    def _listing(self, principal: Principal) -> list[GroupListing]:
        """The caller's groups, in the order of names, which is that of the snapshot."""
        routes = self.snapshot.routes.values() if self.snapshot is not None else ()
        return [
            GroupListing(one.group.name, one.created) for one in routes if one.group.workspace == principal.workspace
        ]

    def _handle_admitted(self, request: Request, path: bytes, principal: Principal) -> None:
        name, _, action = path.partition(b"/")
        translate = TRANSLATORS.get(action)
        if translate is not None:
            _require_method(request, b"POST")
            exchange_of(self, request, self._route(principal, name), translate(request), principal).begin()
        elif action in (b"", b"ready"):
            _require_method(request, b"GET")
            route = self._route(principal, name)
            target = route.champion.target
            if target is None:
                error = route.champion.objection
                _answer_json(request, 503, {"name": route.group.name, "ready": False, "error": error})
            elif isinstance(target, ProviderTarget):
                versions = [str(version) for version in route.group.versions]
                ready = {"name": route.group.name, "ready": True}
                described = {"name": route.group.name, "versions": versions, "platform": "provider"}
                _answer_json(request, 200, ready if action else {**described, "inputs": [], "outputs": []})
            elif action:
                self._ask(target, target.get("/ready"), ReadyAnswer(request, route))
            else:
                self._ask(target, target.get(), MetadataAnswer(request, route))
        elif action.startswith(b"versions/"):
            raise VersionPinned()
        else:
            raise NotFound("There is no such path; a group has /infer, /generate_stream, /ready and its metadata.")

    def _route(self, principal: Principal, name: bytes) -> Route:
        """The route, when the caller may use it. Another workspace's group is as unknown as one that is not there."""
        group = name.decode("ascii", "replace")
        route = self.snapshot.routes.get(group) if self.snapshot else None
        if route is None or route.group.workspace != principal.workspace:
            unread = self.snapshot.unread.get(group) if self.snapshot and route is None else None
            if unread is not None and unread.workspace == principal.workspace:
                self._access.require_inference(principal)
                raise GroupUnreadable(group)
            raise UnknownGroup(group, self.snapshot.near(group, principal.workspace) if self.snapshot else ())
        self._access.require_inference(principal)
        return route

    def _ask(self, target: Target, payload: bytes, then: Caller) -> None:
        self.pools.of(target.endpoint).send(payload, then, self.settings.upstream_timeout_s)

    # -- health

    def _live(self, request: Request) -> None:
        _answer_json(request, 200, {"live": True})

    def _describe(self, request: Request) -> None:
        described = {"name": "mintmark", "version": version("mintmark-platform"), "extensions": ["binary_tensor_data"]}
        _answer_json(request, 200, described)

    def _ready(self, request: Request) -> None:
        refusals = self.snapshot.refusals if self.snapshot else ()
        unread = self.snapshot.unread if self.snapshot else {}
        ready = self.snapshot is not None and self.rows.is_accepting and not self._server.draining
        _answer_json(
            request,
            200 if ready else 503,
            {
                "ready": ready,
                "snapshot": self.snapshot is not None,
                "rows": self.rows.is_accepting,
                "draining": self._server.draining,
                "groups": len(self.snapshot.routes) if self.snapshot else 0,
                "refused": [{"version": str(refusal.version), "reason": refusal.reason} for refusal in refusals],
                "unread": [{"group": name, "serving_revision": one.revision} for name, one in unread.items()],
            },
        )

    def _render_metrics(self, request: Request) -> None:
        headers = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
        request.connection.answer(request, 200, headers, self.metrics.render())


def _refuse_v1(request: Request, path: bytes, error: MintmarkError) -> None:
    """A refusal as the path's own clients read it."""
    protocol = protocol_of(path.decode("latin-1")) or (MESSAGES if b"anthropic-version" in request.headers else CHAT)
    lines = JSON_HEADER
    if error.status == 401:
        lines += b'www-authenticate: Bearer realm="mintmark"\r\n'
    elif error.status == 503:
        lines += b"retry-after: 1\r\n"
    request.connection.answer(request, status_of(error), lines, protocol.error(error, ""))


def _answer_bytes(request: Request, status: int, body: bytes) -> None:
    request.connection.answer(request, status, JSON_HEADER, body)


class WholeAnswer:
    """Of a question about the model, a stream is no answer."""

    _request: Request

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        raise NotImplementedError

    def began(self, status: int, headers: Headers) -> None:
        refuse(self._request, UpstreamGarbageError())

    def chunk(self, data: bytes) -> None:
        """Passed over."""

    def ended(self) -> None:
        """Answered already."""

    def failed(self, error: MintmarkError) -> None:
        refuse(self._request, error)


class MetadataAnswer(WholeAnswer):
    """The champion's own metadata under the group's name, with the versions that share the group."""

    def __init__(self, request: Request, route: Route) -> None:
        self._request = request
        self._route = route

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        try:
            metadata = orjson.loads(body)
        except orjson.JSONDecodeError:
            metadata = None
        if status != 200 or not isinstance(metadata, dict):
            _answer_json(self._request, 502, {"error": f"The champion's model server answered {status}."})
            return
        group = self._route.group
        named = {**metadata, "name": group.name, "versions": [str(version) for version in group.versions]}
        _answer_json(self._request, 200, named)


class ReadyAnswer(WholeAnswer):
    """A group is ready when its champion's model is."""

    def __init__(self, request: Request, route: Route) -> None:
        self._request = request
        self._route = route

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        ready = status == 200
        _answer_json(self._request, 200 if ready else 503, {"name": self._route.group.name, "ready": ready})

    def failed(self, error: MintmarkError) -> None:
        _answer_json(self._request, 503, {"name": self._route.group.name, "ready": False, "error": error.message})


def _require_method(request: Request, method: bytes) -> None:
    if request.method != method:
        raise MethodNotAllowed(f"This path takes {method.decode()}.")


def _answer_json(request: Request, status: int, value: object) -> None:
    request.connection.answer(request, status, JSON_HEADER, orjson.dumps(value))
