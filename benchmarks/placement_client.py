"""Sends a workload over HTTP when each request is due, and notes when its first byte came and what was cached."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np

from benchmarks.placement_workloads import prompt_text
from policies.sim import Result, SimRequest

_PREDICTED = re.compile(r"cached_tokens=(\d+)")
_CACHED = re.compile(rb'"cached_tokens": ?(\d+)')
_ENGINE = re.compile(rb'"id": ?"sim-(\d+)-')
TAIL_BYTES = 2048  # of an answer: its usage is in there
LEAD_S = 0.2  # before the first request: all of them are tasks by then
TIMEOUT_S = 300.0  # real seconds without an answer, after which the run is given up


class TrafficError(RuntimeError):
    """A request was not answered as it must be; one sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw of one request; ``ttft`` in real seconds from the moment that it was due."""

    ttft: float
    cached: int
    predicted: int  # by our own router, when it was asked to explain itself; else 0
    engine: int  # its port


Asked = Callable[[int], str]  # the router of request number N


async def play(
    requests: Sequence[SimRequest],
    speed: float,
    router: Asked,
    tick: Callable[[], None] = lambda: None,
    at: Sequence[tuple[float, str]] = (),
) -> list[Answer]:
    """All of ``requests`` at ``speed``.

    ``at``: simulated times and URLs that get a POST then; with any, decisions are asked for. Raises TrafficError.
    """
    headers = {"Content-Type": "application/json"} | ({"x-warmlane-explain": "1"} if at else {})
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(TIMEOUT_S), headers=headers
    ) as client:
        start = loop.time() + LEAD_S

        async def ask(number: int, request: SimRequest) -> Answer:
            due = start + request.arrival / speed
            await asyncio.sleep(due - loop.time())
            answer = await _ask(client, router(number), number, request_body(request), due)
            tick()
            return answer

        async def interrupt(time: float, url: str) -> None:
            await asyncio.sleep(start + time / speed - loop.time())
            async with client.post(url) as answer:
                answer.raise_for_status()

        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(number, request)) for number, request in enumerate(requests)]
            for time, url in at:
                group.create_task(interrupt(time, url))
    return [answer.result() for answer in answers]


def request_body(request: SimRequest) -> bytes:
    """A streamed completion that tells its usage; the seed names the answer that a later prompt repeats."""
    body = {
        "model": "simulated", "prompt": prompt_text(request), "max_tokens": request.output_tokens,
        "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
    }  # fmt: skip
    if request.answer is not None:
        body["seed"] = request.answer
    return json.dumps(body).encode()


async def _ask(client: aiohttp.ClientSession, url: str, number: int, body: bytes, due: float) -> Answer:
    loop, first, head, tail = asyncio.get_running_loop(), 0.0, b"", b""
    async with client.post(f"{url}/v1/completions", data=body) as answer:
        async for chunk in answer.content.iter_any():
            if not first:
                first, head = loop.time(), chunk
            tail = (tail + chunk)[-TAIL_BYTES:]
        if answer.status != 200:
            raise TrafficError(f"request {number} got {answer.status}: {head[:200].decode(errors='replace')}")
    cached, engine = _CACHED.findall(tail), _ENGINE.search(head)
    if not cached or engine is None:
        raise TrafficError(f"the answer to request {number} does not say what was cached, or where: {head[:200]!r}")
    predicted = _PREDICTED.search(answer.headers.get("x-warmlane-decision", ""))
    return Answer(first - due, int(cached[-1]), int(predicted[1]) if predicted else 0, int(engine[1]))


def result(requests: Sequence[SimRequest], answers: Sequence[Answer], speed: float, ports: Sequence[int]) -> Result:
    """As a simulation gives it: in simulated seconds."""
    index = {port: position for position, port in enumerate(ports)}
    return Result(
        arrival=np.array([request.arrival for request in requests]),
        ttft=np.array([answer.ttft * speed for answer in answers]),
        prompt=np.array([request.prompt_tokens for request in requests], np.int64),
        cached=np.array([answer.cached for answer in answers], np.int64),
        predicted=np.array([answer.predicted for answer in answers], np.int64),
        engine=np.array([index[answer.engine] for answer in answers], np.int64),
        engines=len(ports),
    )
