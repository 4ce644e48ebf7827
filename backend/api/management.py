"""Routes about the server itself: health, what it runs, how busy it is, and its cache."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from aiohttp import web

from backend.api.context import CONTEXT, Serving
from backend.api.errors import SchemaError, json_response
from backend.api.gauges import cache_hit_rate, token_usage, utilization
from backend.api.native import probe
from backend.api.schema import Body, parse_json
from backend.flags.version import installed_version
from backend.frontend.errors import RequestError
from backend.frontend.frontend import Frontend

VERSION = installed_version()
HEALTH_SECONDS = 20.0
FLUSH_POLL_SECONDS = 0.05
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def health(request: web.Request) -> web.Response:
    """Healthy while the scheduler answers; nothing is generated for it."""
    frontend = request.app[CONTEXT].serving().frontend
    await _in_time(frontend.alive(), f"The scheduler has not answered for {HEALTH_SECONDS:.0f} seconds.")
    return web.Response()


async def health_generate(request: web.Request) -> web.Response:
    """Healthy only when a token comes out, whoever asked for it: a server whose queue is full is well."""
    frontend = request.app[CONTEXT].serving().frontend
    if frontend.paused:
        message = "Generation is paused (/pause_generation); no token can come out."
        raise RequestError(message, HTTPStatus.SERVICE_UNAVAILABLE)
    await _in_time(_any_token(frontend), f"No token was generated within {HEALTH_SECONDS:.0f} seconds.")
    return web.Response()


async def _in_time(work: Coroutine[Any, Any, None], late: str) -> None:
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            await work
    except TimeoutError:
        raise RequestError(late, HTTPStatus.SERVICE_UNAVAILABLE) from None


async def _any_token(frontend: Frontend) -> None:
    """Wait for a token of the probe or of another request, whichever comes first."""
    probing, produced = asyncio.create_task(probe(frontend)), asyncio.create_task(frontend.produced())
    try:
        await asyncio.wait({probing, produced}, return_when=asyncio.FIRST_COMPLETED)
        if probing.done() and probing.exception() and frontend.unfinished:
            await produced  # the queue was too full for the probe
        elif not produced.done():
            await probing
    finally:
        for task in (probing, produced):
            task.cancel()
        await asyncio.gather(probing, produced, return_exceptions=True)


async def model_info(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    serving = context.serving()
    model = serving.model
    return json_response(
        {
            "model_path": model.path,
            "served_model_name": model.name,
            "tokenizer_path": model.tokenizer_path,
            "is_generation": serving.ready.task == "generate",
            "preferred_sampling_params": None,
            "weight_version": "default",
            "load_format": context.args.load_format,
            "reasoning_parser": serving.parsers.reasoning,
            "tool_call_parser": serving.parsers.tool_call,
            "disaggregation_mode": "null",
            "has_image_understanding": False,
            "has_audio_understanding": False,
            "model_type": model.model_type,
            "architectures": list(model.architectures),
        }
    )


async def server_info(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    serving = context.serving()
    settings = {name: value for name, value in asdict(context.args).items() if not name.endswith("api_key")}
    ready = msgspec.to_builtins(msgspec.structs.asdict(serving.ready))
    ready.pop("error")
    state = {
        "last_gen_throughput": serving.metrics.decode_throughput(),
        "memory_usage": {"weight": serving.ready.weight_bytes, "kvcache": serving.ready.kv_cache_bytes},
        "effective_max_running_requests_per_dp": serving.ready.max_running_requests,
    }
    return json_response(
        {
            **settings,
            **ready,
            "max_total_num_tokens": serving.ready.max_total_tokens,
            "served_model_name": serving.model.name,
            "internal_states": [state],
            "measured_speed": serving.metrics.measured.as_json(),
            "version": VERSION,
        }
    )


async def loads(request: web.Request) -> web.Response:
    serving = request.app[CONTEXT].serving()
    if request.query.get("format", "json") == "prometheus":
        return _metrics_response(serving.metrics.render_plain_gauges())
    return json_response(
        {
            "timestamp": time.time(),
            "version": VERSION,
            "accelerator": serving.ready.device,
            "num_accelerators": 1,
            "loads": [_load(serving)],
        }
    )


def _load(serving: Serving) -> dict[str, Any]:
    stats, ready = serving.metrics.stats, serving.ready
    return {
        "dp_rank": 0,
        "num_running_reqs": stats.running,
        "num_waiting_reqs": stats.waiting,
        "num_waiting_uncached_tokens": stats.waiting_uncached_tokens,
        "num_used_tokens": stats.used_tokens,
        "num_total_tokens": stats.used_tokens + stats.waiting_uncached_tokens,
        "max_total_num_tokens": ready.max_total_tokens,
        "max_running_requests": ready.max_running_requests,
        "hicache_host_used_tokens": stats.host_used_tokens,
        "hicache_host_total_tokens": ready.host_total_tokens,
        "token_usage": token_usage(stats),
        "gen_throughput": serving.metrics.decode_throughput(),
        "cache_hit_rate": cache_hit_rate(stats),
        "utilization": utilization(stats, ready),
    }


async def get_load(request: web.Request) -> web.Response:
    load = _load(request.app[CONTEXT].serving())
    return json_response(
        [
            {
                "dp_rank": 0,
                "num_reqs": load["num_running_reqs"] + load["num_waiting_reqs"],
                "num_waiting_reqs": load["num_waiting_reqs"],
                "num_tokens": load["num_total_tokens"],
            }
        ]
    )


async def flush_cache(request: web.Request) -> web.Response:
    """Empty the prefix cache; with ``timeout`` wait so many seconds for running requests to end."""
    frontend = request.app[CONTEXT].serving().frontend
    deadline = time.monotonic() + _seconds(request.query.get("timeout", "0"))
    while not await frontend.flush_cache():
        if time.monotonic() >= deadline:
            message = f"The cache was not flushed: {frontend.unfinished} requests are running.\n"
            return web.Response(text=message, status=HTTPStatus.BAD_REQUEST)
        await asyncio.sleep(FLUSH_POLL_SECONDS)
    return web.Response(text="Cache flushed.\n")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise SchemaError(f"timeout must be a number of seconds of at least 0, got {text!r}", param="timeout")
    return seconds


class AbortRequest(Body):
    rid: str = ""
    abort_all: bool = False


async def abort_request(request: web.Request) -> web.Response:
    """End requests by the beginning of their id; an empty id names none."""
    frontend = request.app[CONTEXT].serving().frontend
    body = AbortRequest.read(parse_json(await request.read()))
    if body.abort_all or body.rid:
        frontend.abort(None if body.abort_all else body.rid)
    return web.Response()


class PauseRequest(Body):
    mode: Literal["abort", "retract", "in_place"] = "abort"


async def pause_generation(request: web.Request) -> web.Response:
    """Generate nothing more; running requests end, or stand still with or without their memory (see docs/api.md)."""
    frontend = request.app[CONTEXT].serving().frontend
    body = PauseRequest.read(parse_json(await request.read()) if request.can_read_body else {})
    await frontend.pause(body.mode)
    return json_response({"message": "Generation paused successfully.", "status": "ok"})


async def continue_generation(request: web.Request) -> web.Response:
    """Go on after a pause; nothing to do without one."""
    await request.app[CONTEXT].serving().frontend.resume()
    return json_response({"message": "Generation continued successfully.", "status": "ok"})


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text; ``?labels=none`` gives the gauges alone, without labels."""
    source = request.app[CONTEXT].serving().metrics
    plain = request.query.get("labels") == "none"
    return _metrics_response(source.render_plain_gauges() if plain else source.render())


def _metrics_response(text: bytes) -> web.Response:
    return web.Response(body=text, headers={"Content-Type": PROMETHEUS})
