"""One service: HTTP app, consumers, relay and workers, started, watched and stopped together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import generate_latest

from shared import asyncapi
from shared.bus import topics
from shared.bus.inbox import Consumer, Inbox
from shared.bus.relay import Relay
from shared.bus.subscriber import Subscriber
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.errors import NotFound, Unavailable
from shared.events import BY_TYPE
from shared.events import topics as every_topic
from shared.events.base import Event
from shared.events.documents import schema_of
from shared.http import dead_letters, problems
from shared.http.edge import App, Edge, Receive, Replayed, Scope, Send, answer_again
from shared.identity.identity import Identity
from shared.settings import ServiceSettings
from shared.telemetry import metrics

log = logging.getLogger(__name__)

PATIENCE_S = 60.0
DRAIN_S = 10.0


class Worker(Protocol):
    """Work that goes on beside requests and events; `run` ends when it is cancelled."""

    name: str

    async def run(self) -> None: ...


@dataclass
class Service:
    """What `app.build` returns. `says` lists every event class that it emits; what it hears stands in its consumers.

    `uploads` are the beginnings of paths whose PUT streams a body of any size; all other bodies are bounded and read.
    `apart` are ASGI apps by the beginnings of their paths: behind the same edge, without the framework's routing.
    """

    name: str
    settings: ServiceSettings
    database: Database
    identity: Identity
    router: APIRouter
    consumers: tuple[Consumer, ...] = ()
    workers: tuple[Worker, ...] = ()
    says: tuple[type[Event], ...] = ()
    uploads: tuple[str, ...] = ()
    apart: tuple[tuple[str, App], ...] = ()
    app: FastAPI = field(init=False)
    edge: App = field(init=False)
    """Where requests come in; what a service answers faster than its app does stands in front of it (`app.py`)."""
    _relay: Relay = field(init=False)
    _subscribers: list[Subscriber] = field(init=False, default_factory=list)
    _tasks: list[asyncio.Task[Any]] = field(init=False, default_factory=list)
    _ready: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.app = FastAPI(title=f"Mintmark {self.name}", version="1", docs_url=None, redoc_url=None, openapi_url=None)
        self.app.state.identity = self.identity
        self.app.include_router(self.router)
        self.app.include_router(dead_letters.router(self.name, self.settings.kafka))
        self.app.include_router(self._operations())
        problems.install(self.app)
        self.app.add_exception_handler(Replayed, answer_again)
        inner = _Apart(self.app, self.apart) if self.apart else self.app
        self.edge = Edge(inner, self.name, self.database, self.identity, self.settings.platform, self.uploads)
        self._relay = Relay(self.database, self.settings.kafka, self.name)
        self._subscribers = [
            Subscriber(Inbox(self.database, consumer, self.name, self.identity.authors), self.settings.kafka)
            for consumer in self.consumers
        ]

    @property
    def hears(self) -> tuple[type[Event], ...]:
        """Every event class that a handler is there for."""
        return tuple({route.event: None for consumer in self.consumers for route in consumer.routes})

    async def start(self) -> None:
        """Up to readiness of the database; Kafka may come later. Raises Unavailable when Postgres stays away."""
        await self._open_database()
        if self.settings.platform.migrate_on_start:
            applied = await migrate(self.database, of_service(self.name))
            if applied:
                log.info("migrated", extra={"service": self.name, "applied": applied})
        self._tasks = [asyncio.create_task(self._relay.run(), name=f"{self.name}-relay")]
        self._tasks.append(asyncio.create_task(self._listen(), name=f"{self.name}-listen"))
        self._tasks += [
            asyncio.create_task(self._work(worker), name=f"{self.name}-{worker.name}") for worker in self.workers
        ]
        self._ready = True

    async def _open_database(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                await self.database.open()
                return
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)

    async def _listen(self) -> None:
        while True:
            try:
                for difference in await topics.ensure(self.settings.kafka, every_topic()):
                    log.warning("topic differs", extra={"service": self.name, "difference": str(difference)})
                break
            except Unavailable as error:
                log.warning("no topics yet", extra={"service": self.name, "error": str(error)})
        for subscriber in self._subscribers:
            await subscriber.start()

    async def _work(self, worker: Worker) -> None:
        """A worker that fails is started again: its work is in Postgres, not in its memory."""
        while True:
            try:
                await worker.run()
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.error(
                    "worker failed and starts again",
                    extra={"service": self.name, "worker": worker.name, "error": repr(error)[:500]},
                    exc_info=error,
                )
                await asyncio.sleep(1)

    async def stop(self) -> None:
        """Drain: handlers in hand end or roll back, the outbox is published if Kafka answers, connections close."""
        self._ready = False
        await asyncio.gather(*(subscriber.stop() for subscriber in self._subscribers))
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        if self._tasks:
            await self._relay.drain(DRAIN_S)
            self._tasks[0].cancel()
            with suppress(asyncio.CancelledError):
                await self._tasks[0]
        await self.database.close()

    async def complaints(self) -> list[str]:
        """Why this service is not ready; empty when it is."""
        if not self._ready:
            return [f"{self.name} is starting or stopping"]
        found = []
        try:
            async with self.database.acquire() as connection:
                await connection.fetchval("SELECT 1")
        except Unavailable as error:
            found.append(f"{self.name}: {error}")
        for subscriber in self._subscribers:
            complaint = subscriber.progress.complaint(time.monotonic())
            if complaint:
                found.append(f"{subscriber.group}: {complaint}")
        return found

    def asyncapi(self) -> dict[str, Any]:
        return asyncapi.document(self.name, self.says, self.hears)

    def _operations(self) -> APIRouter:
        router = operations([self])

        @router.get("/asyncapi.json", include_in_schema=False)
        async def asyncapi_document() -> JSONResponse:
            return JSONResponse(self.asyncapi())

        @router.get("/openapi.json", include_in_schema=False)
        async def openapi_document() -> JSONResponse:
            return JSONResponse(self.app.openapi())

        return router


class _Apart:
    """Hands requests with certain paths to apps of their own, and the rest to the service's."""

    def __init__(self, app: App, apart: tuple[tuple[str, App], ...]) -> None:
        self._app = app
        self._apart = apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for beginning, app in self._apart:
                if scope["path"].startswith(beginning):
                    await app(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def operations(services: Sequence[Service]) -> APIRouter:
    """/livez, /readyz, /metrics and /schemas of one or more services in this process."""
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        found = [complaint for service in services for complaint in await service.complaints()]
        return JSONResponse({"status": "not ready" if found else "ready", "complaints": found}, 503 if found else 200)

    @router.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.REGISTRY), media_type="text/plain; version=0.0.4")

    @router.get("/schemas/{name}.json")
    async def schema(name: str) -> JSONResponse:
        event = BY_TYPE.get(name)
        if event is None:
            raise NotFound(f"no event has the type {name[:100]!r}")
        return JSONResponse(schema_of(event))

    return router
