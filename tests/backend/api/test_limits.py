"""Calls that would be too much: of their size, and of the event loop's time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from backend.frontend import frontend as frontend_module
from backend.frontend.frontend import LONG_PROMPT_CHARS, TOKENIZER_THREADS
from tests.backend.api.conftest import Backend
from tests.backend.byte_tokenizer import ByteTokenizer

ONE = {"max_new_tokens": 1}
BATCH = ["ab" * 100] * (LONG_PROMPT_CHARS // 100)  # each short, together long


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/generate", {"text": ["a"] * 9}, "text"),
        ("/generate", {"text": ["a"] * 3, "sampling_params": {"n": 3}}, "text"),
        ("/v1/completions", {"prompt": ["a"] * 9}, "prompt"),
        ("/v1/completions", {"prompt": "a", "n": 9}, "prompt"),
    ],
)
async def test_a_call_of_too_many_requests_is_refused_whole(
    backend: Backend, path: str, body: dict, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend_module, "MOST_REQUESTS", 8)
    response = await backend.http.post(path, json=body)
    assert response.status_code == 400
    assert "9" in response.text
    assert "split the batch" in response.text
    assert backend.engine.received == []


async def test_long_batches_are_tokenised_beside_the_loop_by_a_few_threads(backend: Backend) -> None:
    """While every thread is stuck in a tokeniser, short requests are answered and no further thread is begun."""
    go, entered, inside, most = threading.Event(), threading.Event(), set(), [0]
    plain = backend.frontend.intake.tokenize

    def slow(prompt: object, *rest: object) -> list[int]:
        if prompt in BATCH:
            inside.add(threading.get_ident())
            most[0] = max(most[0], len(inside))
            if len(inside) == TOKENIZER_THREADS:
                entered.set()
            go.wait(20)
        return plain(prompt, *rest)

    backend.frontend.intake.tokenize = slow
    body = {"text": BATCH, "sampling_params": ONE}
    asked = [asyncio.create_task(backend.http.post("/generate", json=body)) for _ in range(TOKENIZER_THREADS + 2)]
    assert await asyncio.to_thread(entered.wait, 20)
    short = await backend.http.post("/generate", json={"text": "hi", "sampling_params": ONE})
    go.set()
    assert short.status_code == 200
    assert [response.status_code for response in await asyncio.gather(*asked)] == [200] * len(asked)
    assert most[0] == TOKENIZER_THREADS
    assert threading.get_ident() not in inside


async def test_a_wrong_prompt_in_a_long_batch_is_named_as_the_client_does(backend: Backend) -> None:
    response = await backend.http.post("/v1/completions", json={"prompt": [*BATCH, ""], "max_tokens": 1})
    assert response.status_code == 400
    assert response.json()["param"] == "prompt"
    assert backend.engine.received == []


async def test_a_batch_in_parts_keeps_its_order(backend: Backend) -> None:
    texts = [f"{i:03d}" + "x" * 200 for i in range(100)]
    response = await backend.http.post("/generate", json={"text": texts, "sampling_params": {"max_new_tokens": 3}})
    assert [each["output_ids"] for each in response.json()] == [ByteTokenizer().encode(text[:3]) for text in texts]
