"""Streams that are sent without waking their handler: every event once and in order, also to a client that is slow."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import defaultdict

import pytest

from backend.api.ready_made import ReadyMade
from tests.backend.api.conftest import Backend

TOKENS, ANSWERS = 200, 4
BODY = {
    "text": "abcdefghij",
    "stream": True,
    "rid": "r" * 20_000,  # told with every event, so that a connection is soon full
    "sampling_params": {"max_new_tokens": TOKENS, "n": ANSWERS, "ignore_eos": True},
}


async def connect(backend: Backend) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that takes little at a time."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", int(backend.url.rsplit(":", 1)[1])))
    return await asyncio.open_connection(sock=raw, limit=4096)


async def send(
    writer: asyncio.StreamWriter, version: str, path: str = "/generate", body: dict[str, object] = BODY
) -> None:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    await writer.drain()


def unchunked(body: bytes) -> bytes:
    """A chunked body's content, its framing checked."""
    content = b""
    while True:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        if not length:
            assert rest == b"\r\n"
            return content
        content, body = content + rest[:length], rest[length + 2 :]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_slow_client_gets_everything_in_order_and_in_fewer_events(backend: Backend, version: str) -> None:
    reader, writer = await connect(backend)
    await send(writer, version)
    await backend.nothing_runs()  # all tokens have come, and the client has read none
    raw = await reader.read(-1)
    writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert (b"chunked" in head) is (version == "1.1")
    *events, done = (unchunked(body) if version == "1.1" else body).decode().split("\n\n")[:-1]
    assert done == "data: [DONE]"
    texts: dict[int, list[str]] = defaultdict(list)
    for event in events:
        told = json.loads(event.removeprefix("data: "))
        texts[told["index"]].append(told["text"])
    whole = ("abcdefghij" * TOKENS)[:TOKENS]
    assert sorted(texts) == list(range(ANSWERS))
    for told in texts.values():
        assert told[-1] == whole
        assert told == sorted(set(told), key=len)
    assert len(events) < TOKENS * ANSWERS


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("more", [{}, {"stream_options": {"continuous_usage_stats": True, "include_usage": True}}])
async def test_a_slow_client_of_one_plain_answer_gets_all_of_its_text_once(
    backend: Backend, path: str, more: dict[str, object]
) -> None:
    asked = {"messages": [{"role": "user", "content": "abc"}]} if "chat" in path else {"prompt": "abcdefghij"}
    body = {"rid": "r" * 20_000, "stream": True, "max_tokens": TOKENS, "ignore_eos": True, **asked}
    whole = (await backend.http.post(path, json=body | {"stream": False})).json()["choices"][0]
    reader, writer = await connect(backend)
    await send(writer, "1.1", path, body | more)
    await backend.nothing_runs()
    raw = await reader.read(-1)
    writer.close()
    *events, done = unchunked(raw.partition(b"\r\n\r\n")[2]).decode().split("\n\n")[:-1]
    assert done == "data: [DONE]"
    told = [json.loads(event.removeprefix("data: ")) for event in events]
    choices = [each["choices"][0] for each in told if each["choices"]]
    texts = [choice.get("text") or choice.get("delta", {}).get("content", "") for choice in choices]
    assert "".join(texts) == (whole["message"]["content"] if "message" in whole else whole["text"])
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]
    assert len(events) < TOKENS
    assert all(("usage" in each) == bool(more) for each in told)


def test_an_event_is_the_same_ready_made_whatever_its_client_called_it() -> None:
    def event(index: int, text: str) -> dict[str, object]:
        return {"id": "\x00gap\x00", "choices": [{"index": index, "text": text, "logprobs": None}]}

    frame = ReadyMade(event).frame(3, 'a"\n')
    assert json.loads(frame.removeprefix(b"data: ")) == event(3, 'a"\n')
