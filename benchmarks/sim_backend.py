"""A backend without a model or a GPU: it speaks the backends' HTTP and takes the time that an engine would take.

It has a prefix cache, batches requests, and prefills and decodes at the speeds that it is given. Its answers are words
that depend on the prompt, and a continued answer goes on where it was: what a client got can be checked.

    python -m benchmarks.sim_backend --port 30001 --count 4
    launch_router --router-hosts 127.0.0.1:30001 127.0.0.1:30002 127.0.0.1:30003 127.0.0.1:30004
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from benchmarks.sim_engine import LiveEngine
from benchmarks.sim_text import TOKENIZERS, SimTokenizer, Words, answer_word
from policies.sim import EngineSpec

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MODEL = "simulated"
DEFAULT_TOKENS = 16
FAST = EngineSpec(kv_tokens=1_000_000, prefill_tokens_per_s=1_000_000.0, step_ms=0.5, sequence_ms=0.0)
CACHED_HEADER = "x-warmlane-cached-tokens"


@web.middleware
async def _misunderstood(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What a backend would refuse, and what only a real one understands, is a 400 and no fault of this one."""
    try:
        return await handler(request)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        said = f"The simulated backend does not understand this request: {type(error).__name__}: {error}"
        return web.json_response({"error": {"message": said, "type": "invalid_request_error"}}, status=400)


class SimBackend:
    """Start it on a port; port 0 takes a free one, and ``port`` then says which.

    ``heads``: answers tell their cached tokens in the head too, as our own backend's do; others only in their usage.
    """

    def __init__(
        self,
        spec: EngineSpec,
        model: str = MODEL,
        *,
        tokenizer: SimTokenizer | None = None,
        speed: float = 1.0,
        stream_interval: int = 1,
        heads: bool = True,
    ) -> None:
        self._spec, self._speed, self._interval = spec, speed, stream_interval
        self.engine = LiveEngine(spec, speed, stream_interval)
        self.tokenizer = tokenizer or Words()
        self.heads = heads
        self.model = model
        self.port = 0
        self.served = 0
        self._started = time.time()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> SimBackend:
        app = web.Application(client_max_size=1 << 30, middlewares=[_misunderstood])
        for path in ("/health", "/health_generate"):
            app.router.add_get(path, self._well)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/get_load", self._load)
        app.router.add_get("/v1/loads", self._loads)
        app.router.add_get("/metrics", self._metrics)
        for path in ("/get_model_info", "/model_info", "/get_server_info", "/server_info"):
            app.router.add_get(path, self._info)
        app.router.add_post("/flush_cache", self._flush)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/generate", self._generate)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _well(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _request: web.Request) -> web.Response:
        card = {"id": self.model, "object": "model", "created": int(self._started), "owned_by": "warmlane"}
        return web.json_response({"object": "list", "data": [card]})

    async def _info(self, _request: web.Request) -> web.Response:
        info = {"model_path": self.model, "served_model_name": self.model}
        return web.json_response(info | {"max_total_num_tokens": self._spec.kv_tokens})

    async def _load(self, _request: web.Request) -> web.Response:
        engine = self.engine
        waiting = engine.running - engine.decodes
        load = {"dp_rank": 0, "num_reqs": engine.running, "num_waiting_reqs": waiting}
        return web.json_response([load | {"num_tokens": engine.waiting_tokens}])

    async def _loads(self, _request: web.Request) -> web.Response:
        engine = self.engine
        load = {
            "dp_rank": 0, "num_running_reqs": engine.decodes, "num_waiting_reqs": engine.running - engine.decodes,
            "num_waiting_uncached_tokens": engine.waiting_tokens, "max_total_num_tokens": self._spec.kv_tokens,
        }  # fmt: skip
        return web.json_response({"timestamp": time.time(), "loads": [load]})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(text=f"process_start_time_seconds {self._started}\nsim_running {self.engine.running}\n")

    async def _flush(self, _request: web.Request) -> web.Response:
        self.engine.flush()
        return web.Response(text="Cache flushed.\n")

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "messages" in body:
            text = "".join(self.tokenizer.render(body["messages"]))
        else:
            text = body.get("prompt", body.get("text", ""))
        tokens = self.tokenizer.ids(text)
        said = msgspec.json.encode({"tokens": tokens, "count": len(tokens), "max_model_len": self._spec.kv_tokens})
        return web.Response(body=said, content_type="application/json")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        messages, said = body["messages"], ""
        if body.get("continue_final_message"):
            *messages, last = messages
            said = last["content"]
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_TOKENS
        return await _Chat(self, request, body, self.tokenizer.render(messages), said, limit).answer()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt, said = self.tokenizer.split(body["prompt"])
        return await _Completion(self, request, body, [prompt], said, body.get("max_tokens") or DEFAULT_TOKENS).answer()

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt, said = self.tokenizer.split(body["text"])
        limit = (body.get("sampling_params") or {}).get("max_new_tokens") or DEFAULT_TOKENS
        return await _Generate(self, request, body, [prompt], said, limit).answer()


class _Answer(ABC):
    """One answer, in one dialect. The prompt comes in parts; ``said`` is what it already holds of the answer."""

    def __init__(
        self, backend: SimBackend, request: web.Request, body: dict, prompt: list[str], said: str, limit: int
    ) -> None:
        self._backend = backend
        self._request = request
        self._stream = bool(body.get("stream"))
        self._body = body
        self._prompt = prompt
        self._seed = body.get("seed")
        self._before = len(backend.tokenizer.tokens(said)) if said else 0
        self._limit = limit
        self._work = backend.tokenizer.request(0.0, [*prompt, said] if said else prompt, limit, self._seed)
        self._id = f"sim-{backend.port}-{backend.served}"
        self._cached = 0

    async def answer(self) -> web.StreamResponse:
        self._backend.served += 1
        sent, response = 0, None
        async for ready, cached in self._backend.engine.run(self._work):
            self._cached = cached
            if self._stream and response is None:
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **self._head})
                await response.prepare(self._request)
                await self._events(response, [*self.opening(), *self.piece(sent, ready)])
            elif response is not None:
                await self._events(response, self.piece(sent, ready))
            sent = ready
        if response is None:
            return web.json_response(self.whole(), headers=self._head)
        await self._events(response, self.closing())
        await response.write(b"data: [DONE]\n\n")
        return response

    @property
    def _head(self) -> dict[str, str]:
        return {CACHED_HEADER: str(self._cached)} if self._backend.heads else {}

    async def _events(self, response: web.StreamResponse, events: list[dict]) -> None:
        if events:
            await response.write(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events))

    def text(self, begin: int, end: int) -> str:
        before = self._before
        return self._backend.tokenizer.answer(self._prompt, self._seed, before + begin, before + end)

    @property
    def usage(self) -> dict:
        count = self._work.prompt_tokens
        details = {"cached_tokens": self._cached}
        total = count + self._limit
        return {
            "prompt_tokens": count, "completion_tokens": self._limit, "total_tokens": total,
            "prompt_tokens_details": details,
        }  # fmt: skip

    def opening(self) -> list[dict]:
        return []

    @abstractmethod
    def piece(self, begin: int, end: int) -> list[dict]: ...

    def closing(self) -> list[dict]:
        return []

    @abstractmethod
    def whole(self) -> dict: ...


class _OpenAI(_Answer):
    kind = ""

    def frame(self, choices: list[dict], **more: object) -> dict:
        named = {"id": self._id, "object": self.kind, "created": 1, "model": self._backend.model}
        return {**named, "choices": choices, **more}

    def closing(self) -> list[dict]:
        last = self.frame([{"index": 0, **self.nothing(), "finish_reason": "length"}])
        asked = (self._body.get("stream_options") or {}).get("include_usage")
        return [last, self.frame([], usage=self.usage)] if asked else [last]

    @abstractmethod
    def nothing(self) -> dict: ...


class _Chat(_OpenAI):
    kind = "chat.completion"

    def opening(self) -> list[dict]:
        return [self.frame([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])]

    def piece(self, begin: int, end: int) -> list[dict]:
        return [self.frame([{"index": 0, "delta": {"content": self.text(begin, end)}, "finish_reason": None}])]

    def nothing(self) -> dict:
        return {"delta": {}}

    def whole(self) -> dict:
        message = {"role": "assistant", "content": self.text(0, self._limit)}
        return self.frame([{"index": 0, "message": message, "finish_reason": "length"}], usage=self.usage)


class _Completion(_OpenAI):
    kind = "text_completion"

    def piece(self, begin: int, end: int) -> list[dict]:
        return [self.frame([{"index": 0, "text": self.text(begin, end), "finish_reason": None}])]

    def nothing(self) -> dict:
        return {"text": ""}

    def whole(self) -> dict:
        text = self.text(0, self._limit)
        return self.frame([{"index": 0, "text": text, "finish_reason": "length"}], usage=self.usage)


class _Generate(_Answer):
    def piece(self, begin: int, end: int) -> list[dict]:
        return [self._event(end)]

    def whole(self) -> dict:
        return self._event(self._limit)

    def _event(self, end: int) -> dict:
        reason = {"type": "length", "length": end} if end == self._limit else None
        meta = {
            "id": self._id, "prompt_tokens": self._work.prompt_tokens, "completion_tokens": end,
            "cached_tokens": self._cached, "finish_reason": reason,
        }  # fmt: skip
        text = self.text(0, end)
        return {"text": text, "output_ids": self._backend.tokenizer.ids(text), "meta_info": meta}


def expected_text(messages: list[dict], count: int) -> str:
    """What the whole answer to a chat must be."""
    (prompt,) = Words().render(messages)
    return "".join(answer_word(prompt, index) for index in range(count)).lstrip()


async def _serve(args: argparse.Namespace) -> None:
    spec = EngineSpec(
        kv_tokens=args.kv_tokens,
        prefill_tokens_per_s=args.prefill_tokens_per_s,
        step_ms=args.step_ms,
        sequence_ms=args.sequence_ms,
    )
    for index in range(args.count):
        backend = SimBackend(
            spec,
            args.model,
            tokenizer=TOKENIZERS[args.tokenizer](),
            speed=args.speed,
            stream_interval=args.stream_interval,
            heads=not args.no_cached_header,
        )
        await backend.start(args.port + index if args.port else 0, args.host)
        print(f"simulated backend on http://{args.host}:{backend.port}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=30001, help="of the first one; 0: free ports")
    parser.add_argument("--count", type=int, default=1, help="how many, on consecutive ports")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--kv-tokens", type=int, default=200_000, help="size of the KV cache in tokens")
    parser.add_argument("--prefill-tokens-per-s", type=float, default=10_000.0)
    parser.add_argument("--step-ms", type=float, default=10.0, help="of a decode step")
    parser.add_argument("--sequence-ms", type=float, default=0.2, help="more for each sequence in a step")
    parser.add_argument("--speed", type=float, default=1.0, help="simulated seconds in a real one")
    parser.add_argument("--stream-interval", type=int, default=1, help="tokens in an event after the first")
    parser.add_argument("--tokenizer", choices=TOKENIZERS, default="words", help="a word, or four characters, a token")
    parser.add_argument("--no-cached-header", action="store_true", help="cached tokens are told in the usage alone")
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # some routers try gRPC on the same port
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
