"""What goes through the router goes through unchanged, both ways."""

from __future__ import annotations

import json

import pytest

from router.body import INFERENCE_ROUTES
from tests.router.conftest import chat, running
from tests.router.fake_backend import FakeBackend

HOP_BY_HOP = ("connection", "keep-alive", "te", "upgrade", "proxy-authorization", "x-private")


async def test_body_bytes_arrive_as_they_were_sent():
    body = (
        b'{ "zz":1e400,"model":"fake-model",\n "messages":[{"role":"user","content":"\\u00e9\\ud83d\\ude00 "}],'
        b' "big":123456789012345678901234567890, "a":1.10 }'
    )
    async with running(FakeBackend()) as fleet:
        async with fleet.client.post("/v1/chat/completions", data=body) as answer:
            assert answer.status == 200
        assert fleet.backends[0].received[0].body == body


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/classify", "/classify", "/v1/score"])
async def test_documents_and_labels_are_asked_for_like_any_answer(path: str):
    """The body arrives as it is, at one backend; the router knows it as a prompt, so that it may try another one."""
    body = b'{"query": "q",  "documents": ["a", {"text": "b"}], "input": "x", "top_n": 1}'
    async with running(FakeBackend(), FakeBackend()) as fleet:
        for backend in fleet.backends:
            backend.received.clear()
        async with fleet.client.post(path, data=body) as answer:
            assert answer.status == 200
        (got,) = [each for backend in fleet.backends for each in backend.received if each.target == path]
        assert got.body == body
        assert path in INFERENCE_ROUTES


async def test_answer_bytes_and_headers_come_back_as_they_were_sent():
    async with running(FakeBackend()) as fleet, fleet.client.get("/some%2Fpath/../x?a=%20b&c") as answer:
        assert await answer.read() == b"echo"
        assert answer.headers["X-Backend"] == "yes"
        assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]


async def test_unknown_routes_and_methods_reach_a_backend_with_path_and_query_untouched():
    async with running(FakeBackend()) as fleet:
        async with fleet.client.request("PATCH", "/any/thing%20else?q=1&q=2", data=b"\x00\xff") as answer:
            assert answer.status == 200
        got = fleet.backends[0].received[0]
        assert (got.method, got.target, got.body) == ("PATCH", "/any/thing%20else?q=1&q=2", b"\x00\xff")


async def test_streams_come_through_whole_and_in_order():
    async with running(FakeBackend()) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi", stream=True, max_tokens=50)) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            text = (await answer.read()).decode()
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert events[-1] == "[DONE]"
        said = [json.loads(event)["choices"][0]["delta"]["content"] for event in events[:-2]]
        assert said == [f"tok {index}" for index in range(50)]


async def test_the_first_token_is_passed_on_before_the_rest_exists():
    async with running(FakeBackend()) as fleet:
        fleet.backends[0].may_go_on.clear()
        async with fleet.client.post("/v1/chat/completions", json=chat("hi", stream=True)) as answer:
            assert b"tok 0" in await answer.content.readany()
            fleet.backends[0].may_go_on.set()
            assert (await answer.read()).endswith(b"[DONE]\n\n")


async def test_hop_by_hop_headers_stay_behind_and_the_rest_arrives():
    sent = {
        "Connection": "keep-alive, X-Private",
        "X-Private": "1",
        "TE": "trailers",
        "Proxy-Authorization": "x",
        "Authorization": "Bearer user-key",
        "X-Anything": "kept",
        "User-Agent": "me",
    }
    async with running(FakeBackend()) as fleet:
        async with fleet.client.get("/x", headers=sent):
            pass
        got = fleet.backends[0].received[0]
        assert not [name for name, _ in got.headers if name.lower() in HOP_BY_HOP]
        assert got.header("Authorization") == "Bearer user-key"
        assert got.header("X-Anything") == "kept"
        assert got.header("User-Agent") == "me"


async def test_the_backend_is_told_who_asked():
    async with running(FakeBackend()) as fleet:
        async with fleet.client.get("/v1/x", headers={"X-Forwarded-For": "203.0.113.7"}):
            pass
        got = fleet.backends[0].received[0]
        assert got.header("X-Forwarded-For") == "203.0.113.7, 127.0.0.1"
        assert got.header("X-Forwarded-Proto") == "http"


async def test_a_request_id_is_kept_or_made_and_told_to_both_sides():
    async with running(FakeBackend()) as fleet:
        async with fleet.client.get("/x", headers={"X-Correlation-Id": "mine"}) as answer:
            assert answer.headers["X-Correlation-Id"] == "mine"
        async with fleet.client.get("/x") as answer:
            made = answer.headers["X-Request-Id"]
        first, second = fleet.backends[0].received
        assert first.header("X-Correlation-Id") == "mine"
        assert made
        assert second.header("X-Request-Id") == made


async def test_compressed_bodies_are_not_unpacked():
    async with running(FakeBackend()) as fleet:
        packed = b"\x1f\x8b not really gzip"
        async with fleet.client.post("/x", data=packed, headers={"Content-Encoding": "gzip"}) as answer:
            assert answer.status == 200
        assert fleet.backends[0].received[0].body == packed


async def test_head_requests_get_the_head_alone():
    async with running(FakeBackend()) as fleet, fleet.client.head("/x") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Length"] == "4"
        assert await answer.read() == b""


async def test_a_large_body_passes_and_one_over_the_limit_gets_413():
    async with running(FakeBackend(), max_payload_size=3_000_000) as fleet:
        async with fleet.client.post("/v1/completions", json={"prompt": "x" * 2_900_000}) as answer:
            assert answer.status == 200
        async with fleet.client.post("/v1/completions", json={"prompt": "x" * 3_000_000}) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["code"] == "body_too_large"

        async def endless():
            for _ in range(4):
                yield b"x" * 1_000_000

        async with fleet.client.post("/v1/completions", data=endless()) as answer:
            assert answer.status == 413
        assert len(fleet.backends[0].received) == 1
