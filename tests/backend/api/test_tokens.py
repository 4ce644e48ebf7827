"""/tokenize and /detokenize."""

from __future__ import annotations

import pytest

from tests.backend.api.conftest import Backend, StartBackend
from tests.backend.byte_tokenizer import ByteTokenizer

ids = ByteTokenizer().encode
HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_a_text(backend: Backend, path: str) -> None:
    answer = await backend.http.post(path, json={"prompt": "é"})
    assert answer.json() == {"tokens": ids("é"), "count": 2, "max_model_len": 512}


async def test_several_texts(backend: Backend) -> None:
    answer = (await backend.http.post("/tokenize", json={"prompt": ["a", "bc"]})).json()
    assert (answer["tokens"], answer["count"]) == ([ids("a"), ids("bc")], [1, 2])


async def test_a_conversation_is_rendered(backend: Backend) -> None:
    answer = (await backend.http.post("/v1/tokenize", json={"messages": HI})).json()
    assert answer["tokens"] == ids("user: hi\nassistant: ")
    answer = (await backend.http.post("/v1/tokenize", json={"messages": HI, "add_generation_prompt": False})).json()
    assert answer["tokens"] == ids("user: hi")


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_back_to_text(backend: Backend, path: str) -> None:
    assert (await backend.http.post(path, json={"tokens": ids("é😀")})).json()["text"] == "é😀"
    assert (await backend.http.post(path, json={"tokens": [ids("a"), ids("b")]})).json()["text"] == ["a", "b"]
    assert (await backend.http.post(path, json={"tokens": []})).json()["text"] == ""


async def test_special_tokens_are_left_out_unless_wanted(backend: Backend) -> None:
    body = {"tokens": [2, *ids("a")]}
    assert (await backend.http.post("/detokenize", json=body)).json()["text"] == "a"
    body["skip_special_tokens"] = False
    assert (await backend.http.post("/detokenize", json=body)).json()["text"] == "<2>a"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/tokenize", {}, "prompt or messages"),
        ("/tokenize", {"prompt": "a", "messages": HI}, "prompt or messages"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": ""}, "empty"),
        ("/detokenize", {}, "tokens is missing"),
        ("/detokenize", {"tokens": [50_000]}, "50000"),
        ("/detokenize", {"tokens": [-1]}, "-1"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
    ],
)
async def test_bad_bodies(backend: Backend, path: str, body: dict, words: str) -> None:
    answer = await backend.http.post(path, json=body)
    assert answer.status_code == 400
    assert words in answer.text


async def test_they_need_the_key(start_backend: StartBackend) -> None:
    async with start_backend(api_key="secret") as backend:
        assert (await backend.http.post("/tokenize", json={"prompt": "a"})).status_code == 401
