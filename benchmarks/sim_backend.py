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
import time
from abc import ABC, abstractmethod
from zlib import crc32

from aiohttp import web

from benchmarks.sim_engine import LiveEngine, answer_word, tokens_of
from policies.sim import EngineSpec

MODEL = "simulated"
DEFAULT_TOKENS = 16
FAST = EngineSpec(kv_tokens=1_000_000, prefill_tokens_per_s=1_000_000.0, step_ms=0.5, sequence_ms=0.0)


class SimBackend:
    """Start it on a port; port 0 takes a free one, and ``port`` then says which."""

    def __init__(self, spec: EngineSpec, model: str = MODEL) -> None:
        self.engine = LiveEngine(spec)
        self.model = model
        self.port = 0
        self.served = 0
        self._started = time.time()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> SimBackend:
        app = web.Application(client_max_size=1 << 30)
        for path in ("/health", "/health_generate"):
            app.router.add_get(path, self._well)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/get_load", self._load)
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
        return web.json_response({"model_path": self.model, "served_model_name": self.model})

    async def _load(self, _request: web.Request) -> web.Response:
        return web.json_response([{"dp_rank": 0, "num_reqs": self.engine.running, "num_tokens": 0}])

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(text=f"process_start_time_seconds {self._started}\nsim_running {self.engine.running}\n")

    async def _flush(self, _request: web.Request) -> web.Response:
        self.engine.flush()
        return web.Response(text="Cache flushed.\n")

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        tokens = [crc32(token.encode()) for token in tokens_of(body.get("prompt", body.get("text", "")))]
        return web.json_response({"tokens": tokens, "count": len(tokens)})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        messages = [f"{message['role']}: {message.get('content', '')}" for message in body["messages"]]
        said = ""
        if body.get("continue_final_message"):
            said = body["messages"][-1]["content"]
            messages.pop()
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_TOKENS
        return await _Chat(self, request, body, "\n".join(messages), said, limit).answer()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt, said = _split(body["prompt"])
        return await _Completion(self, request, body, prompt, said, body.get("max_tokens") or DEFAULT_TOKENS).answer()

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt, said = _split(body["text"])
        limit = (body.get("sampling_params") or {}).get("max_new_tokens") or DEFAULT_TOKENS
        return await _Generate(self, request, body, prompt, said, limit).answer()


def _split(prompt: str) -> tuple[str, str]:
    """A prompt and the answer that it already holds: an answer begins behind the first line's end."""
    question, mark, said = prompt.partition("\n")
    return question + mark, said


class _Answer(ABC):
    """One answer, in one dialect."""

    def __init__(
        self, backend: SimBackend, request: web.Request, body: dict, prompt: str, said: str, limit: int
    ) -> None:
        self._backend = backend
        self._request = request
        self._stream = bool(body.get("stream"))
        self._body = body
        self._prompt = prompt
        self._before = len(tokens_of(said))
        self._limit = limit
        self._tokens = [*tokens_of(prompt), *tokens_of(said)]
        self._id = f"sim-{backend.port}-{backend.served}"
        self._cached = 0

    async def answer(self) -> web.StreamResponse:
        self._backend.served += 1
        sent, response = 0, None
        async for ready, cached in self._backend.engine.run(self._tokens, self._limit):
            self._cached = cached
            if self._stream and response is None:
                headers = {"Content-Type": "text/event-stream", "x-warmlane-cached-tokens": str(cached)}
                response = web.StreamResponse(headers=headers)
                await response.prepare(self._request)
                await self._events(response, self.opening())
            if response is not None:
                await self._events(response, self.piece(sent, ready))
            sent = ready
        if response is None:
            return web.json_response(self.whole(), headers={"x-warmlane-cached-tokens": str(self._cached)})
        await self._events(response, self.closing())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _events(self, response: web.StreamResponse, events: list[dict]) -> None:
        if events:
            await response.write(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events))

    def text(self, begin: int, end: int) -> str:
        words = [answer_word(self._prompt, self._before + index) for index in range(begin, end)]
        return "".join(words) if self._before + begin else "".join(words).lstrip()

    @property
    def usage(self) -> dict:
        count = len(self._tokens)
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
            "id": self._id, "prompt_tokens": len(self._tokens), "completion_tokens": end,
            "cached_tokens": self._cached, "finish_reason": reason,
        }  # fmt: skip
        text = self.text(0, end)
        return {"text": text, "output_ids": [crc32(token.encode()) for token in tokens_of(text)], "meta_info": meta}


def expected_text(messages: list[dict], count: int) -> str:
    """What the whole answer to a chat must be."""
    prompt = "\n".join(f"{message['role']}: {message.get('content', '')}" for message in messages)
    return "".join(answer_word(prompt, index) for index in range(count)).lstrip()


async def _serve(args: argparse.Namespace) -> None:
    spec = EngineSpec(
        kv_tokens=args.kv_tokens,
        prefill_tokens_per_s=args.prefill_tokens_per_s,
        step_ms=args.step_ms,
        sequence_ms=args.sequence_ms,
    )
    for index in range(args.count):
        backend = await SimBackend(spec, args.model).start(args.port + index if args.port else 0, args.host)
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
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
