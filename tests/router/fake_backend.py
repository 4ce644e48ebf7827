"""A backend without a model: it speaks the backend's HTTP, has a real prefix cache, and fails on command.

Run alone: ``python -m tests.router.fake_backend --port 30001``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
from dataclasses import dataclass, field
from enum import Enum, auto

from aiohttp import web

BYTES_PER_TOKEN = 4


class Fault(Enum):
    """What goes wrong with the next inference requests, until ``fault`` is None again."""

    HANG = auto()  # accepts the request and says nothing
    RESET = auto()  # closes the connection before the first byte
    EMPTY = auto()  # 200 and not one byte
    CUT = auto()  # closes the connection after the first chunk
    STATUS = auto()  # answers ``status``


@dataclass
class Received:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class FakeBackend:
    """Start it on a free port; ``url`` then says where. ``tells``: where cached tokens stand, ``head`` or ``usage``."""

    models: tuple[str, ...] = ("fake-model",)
    tells: str = "head"
    fault: Fault | None = None
    status: int = 500
    status_headers: dict[str, str] = field(default_factory=dict)
    healthy: bool = True
    token_seconds: float = 0.0
    chunk: str = "tok "
    received: list[Received] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    running: int = 0
    abandoned: int = 0  # requests whose client left before the end
    flushed: int = 0
    health_checks: int = 0
    started_at: float = 1000.0
    server_info: dict = field(default_factory=dict)
    written: int = 0  # bytes of streams
    reset_next: bool = False  # the next inference request meets a closing connection
    port: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.may_answer = asyncio.Event()  # cleared: requests wait before their first token
        self.may_answer.set()
        self.health_gate = asyncio.Event()  # cleared: health checks wait
        self.health_gate.set()
        self.may_go_on = asyncio.Event()  # cleared: streams wait after their first token
        self.may_go_on.set()
        self.changed = asyncio.Event()  # set whenever ``running`` or ``abandoned`` changed
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> FakeBackend:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/get_model_info", self._info)
        app.router.add_get("/server_info", self._server_info)
        app.router.add_get("/get_server_info", self._server_info)
        app.router.add_get("/get_load", self._load)
        app.router.add_post("/flush_cache", self._flush)
        for path in ("/v1/chat/completions", "/v1/completions", "/generate"):
            app.router.add_post(path, self._inference)
        app.router.add_route("*", "/{path:.*}", self._echo)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, auto_decompress=False, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port or self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Refuse connections and cut those that exist."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, condition) -> None:
        """Wait until ``condition()`` holds; it is looked at whenever a request starts or ends."""
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def _health(self, _request: web.Request) -> web.Response:
        self.health_checks += 1
        await self.health_gate.wait()
        return web.Response(status=200 if self.healthy else 503)

    async def _models(self, _request: web.Request) -> web.Response:
        cards = [{"id": model, "object": "model", "created": 0, "owned_by": "fake"} for model in self.models]
        return web.json_response({"object": "list", "data": cards})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            text=f"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {self.started_at}\n"
        )

    async def _info(self, _request: web.Request) -> web.Response:
        return web.json_response({"model_path": self.models[0], "port": self.port})

    async def _server_info(self, _request: web.Request) -> web.Response:
        return web.json_response(self.server_info)

    async def _load(self, _request: web.Request) -> web.Response:
        row = {"dp_rank": 0, "num_reqs": self.running, "num_waiting_reqs": 0, "num_tokens": 10 * len(self.prompts)}
        return web.json_response([row])

    async def _flush(self, _request: web.Request) -> web.Response:
        self.flushed += 1
        self.prompts.clear()
        return web.Response(text="Cache flushed.")

    async def _echo(self, request: web.Request) -> web.Response:
        await self._note(request)
        if self.fault is not None:
            return await self._fail(request)
        return web.Response(body=b"echo", headers=[("X-Backend", "yes"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    async def _note(self, request: web.Request) -> bytes:
        body = await request.read()
        self.received.append(Received(request.method, request.raw_path, list(request.headers.items()), body))
        return body

    async def _inference(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        self.running += 1
        self.changed.set()
        whole = False
        try:
            answer = await self._answer(request, json.loads(body))
            whole = True
            return answer
        finally:
            self.running -= 1
            self.abandoned += not whole
            self.changed.set()

    async def _answer(self, request: web.Request, fields: dict) -> web.StreamResponse:
        if self.reset_next:
            self.reset_next = False
            request.transport.abort()
        await self.may_answer.wait()
        if self.fault is not None and self.fault is not Fault.CUT:
            return await self._fail(request)
        prompt = json.dumps(fields.get("messages", fields.get("prompt", fields.get("text"))))
        cached = self._cached(prompt)
        headers = {"x-warmlane-cached-tokens": str(cached)} if self.tells == "head" else {}
        usage = {"prompt_tokens": len(prompt) // BYTES_PER_TOKEN, "prompt_tokens_details": {"cached_tokens": cached}}
        count = fields.get("max_tokens", 3)
        if fields.get("stream"):
            return await self._stream(request, headers, usage, count)
        await asyncio.sleep(self.token_seconds * count)
        message = {"role": "assistant", "content": self.chunk * count}
        return web.json_response({"choices": [{"message": message}], "usage": usage}, headers=headers)

    async def _stream(self, request: web.Request, headers: dict, usage: dict, count: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
        await response.prepare(request)
        for index in range(count):
            delta = {"choices": [{"index": 0, "delta": {"content": f"{self.chunk}{index}"}}]}
            event = f"data: {json.dumps(delta)}\n\n".encode()
            await response.write(event)
            self.written += len(event)
            if self.fault is Fault.CUT:
                request.transport.close()
                return response
            await self.may_go_on.wait()
            await asyncio.sleep(self.token_seconds)
        await response.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode())
        return response

    def _cached(self, prompt: str) -> int:
        longest = max((shared(prompt, earlier) for earlier in self.prompts), default=0)
        self.prompts.append(prompt)
        return longest // BYTES_PER_TOKEN

    async def _fail(self, request: web.Request) -> web.Response:
        if self.fault is Fault.HANG:
            await asyncio.Event().wait()
        if self.fault is Fault.RESET:
            request.transport.abort()
        if self.fault is Fault.STATUS:
            return web.json_response({"error": "on purpose"}, status=self.status, headers=self.status_headers)
        return web.Response(status=200)


def shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


async def _serve_forever(port: int) -> None:
    backend = await FakeBackend().start(port)
    print(f"fake backend on {backend.url}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve_forever(parser.parse_known_args()[0].port))
