"""Routes whose answer lies with all data processes: metrics, and the one that explains a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from router.errors import Refusal
from router.http.message import Reply, Request
from router.metrics import Metrics
from router.processes.keeper import Keeper
from router.processes.metrics_sum import Summed

OK, NOT_FOUND = 200, 404


class Gathered:
    """Asks every data process. ``metrics`` are the owner's own."""

    def __init__(self, keepers: Sequence[Keeper], metrics: Metrics) -> None:
        self._keepers = keepers
        self._metrics = metrics
        self._last: dict[int, str] = {}  # each process's exposition when it was asked last
        self._past = Summed()  # of processes that ended

    def add_routes(self, app: web.Application) -> None:
        self.add_metrics(app)
        app.router.add_get("/router/explain/{request_id:.+}", self._explain)

    def add_metrics(self, app: web.Application) -> None:
        app.router.add_get("/metrics", self._exposition)

    def ended(self, index: int) -> None:
        """What a process counted stays: a counter never goes back for its end."""
        if (last := self._last.pop(index, None)) is not None:
            self._past.add(last, counters_only=True)

    async def _exposition(self, _request: web.Request) -> web.Response:
        await self._ask("/metrics", noted=self._note)
        whole = Summed()
        for text in (self._metrics.text().decode(), self._past.text().decode(), *self._last.values()):
            whole.add(text)
        return web.Response(body=whole.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _note(self, keeper: Keeper, reply: Reply) -> None:
        """At once: who ends while others are asked must not be counted again."""
        if reply.status == OK:
            self._last[keeper.index] = reply.body.decode()

    async def _explain(self, request: web.Request) -> web.Response:
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
        answers = await self._ask(str(request.rel_url), pairs, request.remote or "")
        found = next((reply for reply in answers if reply.status != NOT_FOUND), None)
        if found is None:
            name = request.match_info["request_id"]
            raise Refusal(404, f"Request {name!r} is not among the last ones.", param="request_id", code="not_found")
        return web.Response(status=found.status, body=found.body, content_type="application/json")

    async def _ask(
        self,
        target: str,
        pairs: Sequence[tuple[bytes, bytes]] = (),
        remote: str = "127.0.0.1",
        noted: Callable[[Keeper, Reply], None] = lambda _keeper, _reply: None,
    ) -> list[Reply]:
        """The answers of those that run; ``noted`` gets each as it comes."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
        request = Request("GET", target, "1.1", list(pairs), headers, remote, "http")

        async def ask(keeper: Keeper) -> Reply | None:
            reply = await keeper.ask(request)
            if reply is not None:
                noted(keeper, reply)
            return reply

        replies = await asyncio.gather(*(ask(keeper) for keeper in self._keepers))
        return [reply for reply in replies if reply is not None]
