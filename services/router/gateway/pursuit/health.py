"""Asks Open Inference servers in the background whether they are ready, for groups that want it.

Each gateway process asks for itself, since it is its own way to a server that matters. Who is not ready is asked last
by requests, and never barred: that is the breaker's to do, by what requests themselves met.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from services.router.gateway.addresses import BaseUrl
from services.router.gateway.arms import Target
from services.router.gateway.providers import provider_of
from services.router.gateway.pursuit.memory import Memories
from services.router.gateway.pursuit.plan import Candidate, Plan
from services.router.gateway.snapshot import Route
from services.router.gateway.upstream import Headers, Pools
from services.router.group_settings.routing import Health
from shared.errors import MintmarkError

log = logging.getLogger(__name__)

SERVER = "/v2/health/ready"
UNREADY = b'"ready":false'


class Prober:
    """One task a group that has probes; none where no group has."""

    def __init__(self, pools: Pools, memories: Memories) -> None:
        self._pools = pools
        self._memories = memories
        self._running: dict[str, tuple[Plan, asyncio.Task[None]]] = {}

    def take(self, routes: Mapping[str, Route]) -> None:
        """A new snapshot: begin, change or end the probes of groups whose plan is another."""
        wanted = {
            name: route.plan
            for name, route in routes.items()
            if route.plan is not None and route.plan.section.health is not None
        }
        for name in [one for one, (plan, _) in self._running.items() if wanted.get(one) != plan]:
            self._running.pop(name)[1].cancel()
        for name, plan in wanted.items():
            if name not in self._running:
                task = asyncio.get_running_loop().create_task(self._run(name, plan))
                self._running[name] = (plan, task)

    def stop(self) -> None:
        for _, task in self._running.values():
            task.cancel()
        self._running.clear()

    async def _run(self, group: str, plan: Plan) -> None:
        health = plan.section.health
        assert health is not None
        asked = {key: payload for key, one in plan.all.items() if (payload := probe(one, health)) is not None}
        in_a_row: dict[str, int] = dict.fromkeys(asked, 0)
        while True:
            answers = await asyncio.gather(*(self._is_ready(plan.all[key], asked[key], health) for key in asked))
            unready = self._memories.of(group, plan.section).unready
            for key, is_ready in zip(asked, answers, strict=True):
                if is_ready == (key not in unready):
                    in_a_row[key] = 0
                    continue
                in_a_row[key] += 1
                if is_ready and in_a_row[key] >= health.healthy_after:
                    unready.discard(key)
                    in_a_row[key] = 0
                    log.info("a target is ready again", extra={"group": group, "target": key})
                elif not is_ready and in_a_row[key] >= health.unhealthy_after:
                    unready.add(key)
                    in_a_row[key] = 0
                    log.warning("a target is not ready", extra={"group": group, "target": key})
            await asyncio.sleep(health.interval_s)

    async def _is_ready(self, candidate: Candidate, payload: bytes, health: Health) -> bool:
        hearer = _Hearer()
        call = self._pools.of(candidate.target.endpoint).send(payload, hearer, health.timeout_s)
        try:
            return await hearer.ready
        finally:
            call.abandon()


class _Hearer:
    """Hears the answer to one probe."""

    def __init__(self) -> None:
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        self._say(status == 200 and UNREADY not in body.replace(b" ", b""))

    def began(self, status: int, headers: Headers) -> None:
        self._say(False)

    def chunk(self, data: bytes) -> None:
        """Passed over."""

    def ended(self) -> None:
        self._say(False)

    def failed(self, error: MintmarkError) -> None:
        self._say(False)

    def _say(self, ready: bool) -> None:
        if not self.ready.done():
            self.ready.set_result(ready)


def probe(candidate: Candidate, health: Health) -> bytes | None:
    """The request to send; None for a provider that has nothing of the kind."""
    target = candidate.target
    if isinstance(target, Target):
        if health.of == "model":
            return target.get("/ready")
        host = f"{target.endpoint.host}:{target.endpoint.port}"
        path = target.model_path.partition("/v2/models/")[0] + SERVER
        return f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    upstream = target.upstream
    if upstream.kind != "oip":
        return None
    base, provider = BaseUrl.parse(upstream.base_url), provider_of(upstream)
    path = SERVER
    if health.of == "model":
        path = provider.native["oip"](upstream, False).removesuffix("/infer") + "/ready"
    signed = provider.sign(upstream, base, path, b"", target.secret, False)
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed if name.lower() != "content-type")
    return f"GET {base.path}{path} HTTP/1.1\r\nhost: {base.authority}\r\n{lines}\r\n".encode("latin-1")
