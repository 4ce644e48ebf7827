"""A client that leaves takes its work with it, whatever it was waiting for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from backend.api.app import create_app
from backend.api.context import ServerContext
from backend.config import ServerArgs
from backend.messages import Finish, FromScheduler
from tests.backend import fake_scheduler
from tests.backend.api.conftest import MODEL, Backend
from tests.backend.byte_tokenizer import ByteTokenizer
from tests.backend.fake_scheduler import SILENT_TOKEN, STUCK_TOKEN

ids = ByteTokenizer().encode
BEFORE_FIRST, AFTER_FIRST = [*ids("ab"), SILENT_TOKEN], [*ids("ab"), STUCK_TOKEN]


def body(path: str, prompt: list[int], stream: bool, n: int) -> dict:
    if path == "/generate":
        return {"input_ids": prompt, "sampling_params": {"n": n}, "stream": stream}
    return {"model": MODEL, "prompt": prompt, "stream": stream, "n": n}


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll without a fixed wait: each turn gives the loop to the server."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the fake scheduler is a thread and sets no event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", [BEFORE_FIRST, AFTER_FIRST], ids=["before-first-token", "after-first-token"])
@pytest.mark.parametrize("n", [1, 3])
async def test_leaving_aborts(backend: Backend, path: str, stream: bool, prompt: list[int], n: int) -> None:
    content = json.dumps(body(path, prompt, stream, n)).encode()
    port = int(backend.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    if prompt is AFTER_FIRST:
        assert (
            await reader.readline()
        ) == b"HTTP/1.1 200 OK\r\n"  # the head leaves with the first token, stream or not
    else:
        await until(lambda: len(backend.engine.received) == n, "the requests to reach the scheduler")
    writer.transport.abort()
    await backend.nothing_runs()
    assert len(backend.engine.aborted) == n


async def test_leaving_one_does_not_touch_the_others(backend: Backend) -> None:
    stay = asyncio.create_task(backend.http.post("/generate", json={"input_ids": AFTER_FIRST, "rid": "stay"}))
    leave = asyncio.create_task(backend.http.post("/generate", json={"input_ids": BEFORE_FIRST, "rid": "leave"}))
    await until(lambda: len(backend.engine.received) == 2, "both requests to run")
    leave.cancel()
    await asyncio.gather(leave, return_exceptions=True)
    await until(lambda: backend.frontend.unfinished == 1, "the first request to be aborted")
    await backend.http.post("/abort_request", json={"rid": "stay"})
    assert (await stay).json()["text"] == "a"


async def test_a_write_to_a_client_that_left_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def write(request: web.Request) -> web.Response:
        raise ConnectionResetError("Cannot write to closing transport")

    app = create_app(ServerContext(ServerArgs()))
    app.router.add_get("/write", write)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/write")).status == 499
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_the_head_of_a_whole_answer_leaves_with_the_first_token(backend: Backend) -> None:
    async with backend.http.stream("POST", "/generate", json={"input_ids": AFTER_FIRST}) as response:
        assert response.status_code == 200  # while the request is still running
        assert response.headers["x-warmlane-cached-tokens"] == "0"
        assert backend.frontend.unfinished == 1


@pytest.mark.parametrize("n", [1, 2])
async def test_an_error_after_the_head_of_a_whole_answer_ends_that_answer_as_aborted(backend: Backend, n: int) -> None:
    sampling = {"max_new_tokens": 4, "n": n}
    body = {"input_ids": [*ids("a"), STUCK_TOKEN], "sampling_params": sampling}
    async with backend.http.stream("POST", "/generate", json=body) as response:
        assert response.status_code == 200
        first, *others = [request.uid for request in backend.engine.received][-n:]
        for uid in (first, *others):
            backend.engine.running.pop(uid)
        slow = Finish(first, "abort", message="too slow", status_code=400)
        backend.frontend.dispatch(FromScheduler(finished=[slow]))
        for uid in others:
            backend.frontend.dispatch(FromScheduler(finished=[Finish(uid, "length")]))
        told = json.loads(await response.aread())
    answers = told if isinstance(told, list) else [told]
    reasons = [answer["meta_info"]["finish_reason"]["type"] for answer in answers]
    assert reasons == ["abort", "length"][:n]


async def test_a_response_that_fails_after_its_head_says_failed_and_why(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": MODEL, "input": "hello", "max_output_tokens": 4}
    await backend.http.post("/v1/responses", json=body)
    template_end = backend.engine.seen[-1][-1]
    monkeypatch.setattr(fake_scheduler, "STUCK_TOKEN", template_end)
    async with backend.http.stream("POST", "/v1/responses", json=body) as response:
        assert response.status_code == 200
        uid = backend.engine.received[-1].uid
        backend.engine.running.pop(uid)
        slow = Finish(uid, "abort", message="too slow", status_code=400)
        backend.frontend.dispatch(FromScheduler(finished=[slow]))
        told = json.loads(await response.aread())
    assert (told["status"], told["error"]["message"], told["incomplete_details"]) == ("failed", "too slow", None)
