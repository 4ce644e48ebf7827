"""A small upstream for tests of what stands in front of it: tells back what reached it, streams on command."""

from __future__ import annotations

import argparse
import asyncio

from aiohttp import web

RELEASED = web.AppKey("released", asyncio.Event)


async def tell_back(request: web.Request) -> web.Response:
    """What arrived: path, headers, size of the body."""
    body = await request.read()
    headers = {name.lower(): value for name, value in request.headers.items()}
    return web.json_response({"path": request.raw_path, "headers": headers, "body": len(body)})


async def metrics(request: web.Request) -> web.Response:
    """One counter for Prometheus."""
    return web.Response(text="# TYPE stand_in_requests_total counter\nstand_in_requests_total 1\n")


async def stream(request: web.Request) -> web.StreamResponse:
    """One event, then nothing until ``POST /v1/release``, then the last event."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: first\n\n")
    await request.app[RELEASED].wait()
    await response.write(b"data: [DONE]\n\n")
    return response


async def release(request: web.Request) -> web.Response:
    """Let the waiting streams end."""
    request.app[RELEASED].set()
    return web.json_response({})


def build() -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app[RELEASED] = asyncio.Event()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/stream", stream)
    app.router.add_post("/v1/release", release)
    app.router.add_route("*", "/{path:.*}", tell_back)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    web.run_app(build(), host="127.0.0.1", port=parser.parse_args().port, print=None)
