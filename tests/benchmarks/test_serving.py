"""The serving benchmark against a simulated engine: what is asked, and what is made of the times."""

import argparse
import json
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from benchmarks.serving import run
from benchmarks.serving_data import load
from benchmarks.serving_table import summary, table
from benchmarks.sim_backend import FAST, SimBackend


def arguments(**given):
    said = {"model": "default", "requests": 12, "input_len": 40, "output_len": 5, "seed": 1, "rate": 0.0}
    return argparse.Namespace(**{**said, "concurrency": 0, "timeout": 30.0, "url": "", "file": None, **given})


@pytest.mark.parametrize("name", ["random", "shared", "chat"])
@pytest.mark.parametrize("way", [{"rate": 0.0}, {"rate": 2000.0}, {"concurrency": 3}])
async def test_every_request_is_answered_and_counted(name, way):
    backend = await SimBackend(FAST).start()
    try:
        asked = arguments(url=f"http://127.0.0.1:{backend.port}", **way)
        asks = load(name, asked)
        seen = await run(asked, asks)
    finally:
        await backend.stop()
    assert len(asks) == len(seen) == 12
    assert [each.error for each in seen] == [""] * 12
    assert {each.tokens for each in seen} == {5}
    found = summary(seen, 60.0, 60.0)
    assert found["failed"] == 0
    assert set(found["ms"]) == {"TTFT", "TPOT", "ITL", "E2E"}
    assert found["rates"]["good requests"] == found["rates"]["requests"]
    assert "0 failed" in table(found)


def test_data_are_the_same_for_the_same_seed(tmp_path):
    assert load("chat", arguments()) == load("chat", arguments())
    assert load("chat", arguments()) != load("chat", arguments(seed=2))
    path = tmp_path / "asks.jsonl"
    path.write_text(json.dumps({"prompt": "a", "max_tokens": 3}) + "\n" + json.dumps({"messages": [{"role": "user"}]}))
    first, second = load("file", arguments(file=path))
    assert (first.body()["prompt"], first.max_tokens, second.path) == ("a", 3, "/v1/chat/completions")


@dataclass
class Told:
    sent: float = 0.0
    ended: float = 2.0
    events: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    tokens: int = 4
    prompt_tokens: int = 10
    cached_tokens: int = 5
    error: str = ""


def test_figures():
    found = summary([Told(), Told(events=[1.5, 2.0], tokens=2), Told(error="status 503: busy")], 1.0, 0.5)
    assert found["failed"] == 1
    assert found["errors"] == {"status 503: busy": 1}
    assert found["rates"] == {"requests": 1.0, "good requests": 0.5, "output tokens": 3.0, "prompt tokens": 10.0}
    assert found["cached"] == 0.5
    assert found["ms"]["TTFT"]["mean"] == 1000.0
    assert found["ms"]["TPOT"]["p50"] == 500.0
    assert found["ms"]["ITL"]["p50"] == 500.0


async def test_errors_of_a_server_are_told():
    async def busy(_: web.Request) -> web.Response:
        return web.json_response({"message": "busy"}, status=503)

    app = web.Application()
    app.router.add_post("/v1/completions", busy)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        asked = arguments(url=f"http://127.0.0.1:{runner.addresses[0][1]}", requests=2)
        seen = await run(asked, load("random", asked))
    finally:
        await runner.cleanup()
    assert all("status 503" in each.error for each in seen)
