"""Rerankers and classifiers: by a head, by yes and no, and what a model without either answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.loader.classes import Classes
from backend.prompt import ChatTemplate
from tests.backend.api.conftest import MODEL, Backend
from tests.backend.byte_tokenizer import OFFSET, ByteTokenizer
from tests.backend.fake_scheduler import SILENT_TOKEN

TEMPLATE = (Path(__file__).parents[3] / "configs" / "qwen3_reranker.jinja").read_text(encoding="utf-8")
ASKED = {"query": "q", "documents": ["b", "d", "a", "c"]}


class WordTokenizer(ByteTokenizer):
    """Bytes, but for the two words of a judge."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return {"yes": [300], "no": [200]}.get(text) or super().encode(text, add_special_tokens)


def give_labels(backend: Backend, labels: Sequence[str], activation: str) -> None:
    """From now on the model is a classifier, whose numbers the fake makes of the prompt's last token."""
    loaded = backend.context.loaded
    assert loaded is not None
    model = replace(loaded.model, classes=Classes(tuple(labels), activation))
    backend.context.loaded = replace(loaded, model=model)
    backend.frontend.intake.limits = replace(backend.frontend.intake.limits, task="classify")


@pytest.fixture
def reranker(backend: Backend) -> Backend:
    give_labels(backend, ["LABEL_0"], "identity")
    return backend


@pytest.fixture
def judge(backend: Backend) -> Backend:
    """A model that says yes or no; the fake's log probability of a token is a hundredth of its id, below zero."""
    backend.frontend.intake.tokenizer = WordTokenizer()
    backend.frontend.intake.template = ChatTemplate(TEMPLATE)
    return backend


async def post(backend: Backend, path: str, **body: Any) -> Any:
    response = await backend.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_documents_come_best_first_in_sglangs_form(reranker: Backend) -> None:
    found = await post(reranker, "/v1/rerank", **ASKED)
    assert [each["document"] for each in found] == ["d", "c", "b", "a"]
    assert [each["index"] for each in found] == [1, 3, 0, 2]
    assert found[0]["score"] == pytest.approx((ord("d") + OFFSET) / 100)
    assert found[0]["meta_info"]["prompt_tokens"] == len("q|d")


@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank"])
async def test_documents_in_the_form_of_the_others(reranker: Backend, path: str) -> None:
    found = await post(reranker, path, model=MODEL, query="q", documents=[{"text": "a"}, "b"], top_n=1)
    assert found["results"] == [{"index": 1, "document": {"text": "b"}, "relevance_score": pytest.approx(1.08)}]
    assert found["model"] == MODEL
    assert found["usage"]["total_tokens"] > 0


async def test_equal_documents_keep_their_order(reranker: Backend) -> None:
    found = await post(reranker, "/v1/rerank", query="q", documents=["x", "x", "y"], return_documents=False)
    assert [each["index"] for each in found] == [2, 0, 1]
    assert "document" not in found[0]


async def test_a_judge_is_asked_for_yes_or_no(judge: Backend) -> None:
    found = await post(judge, "/v1/rerank", query="is it?", documents=["it is"], instruct="think")
    assert found[0]["score"] == pytest.approx(1 / (1 + 2.718281828**1))  # yes at -3, no at -2
    prompt = WordTokenizer().decode(judge.engine.seen[-1])
    assert "<Instruct>: think\n<Query>: is it?\n<Document>: it is<|im_end|>" in prompt
    assert prompt.startswith("<|im_start|>system\nJudge")
    assert prompt.endswith("<think>\n\n</think>\n\n")


async def test_a_judge_with_a_head_reads_the_template_too(judge: Backend) -> None:
    give_labels(judge, ["LABEL_0"], "identity")
    await post(judge, "/v1/rerank", query="is it?", documents=["it is"])
    assert "<Query>: is it?" in WordTokenizer().decode(judge.engine.seen[-1])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": ["a", " "]}, "documents.1"),
        ({"query": "q", "documents": [{"image": "x"}]}, "documents.0"),
        ({**ASKED, "top_n": -1}, "top_n"),
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": "q", "documents": ["a" * 1000]}, "documents"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_wrong_bodies_name_their_field(reranker: Backend, path: str, body: dict[str, Any], param: str) -> None:
    response = await reranker.http.post(path, json=body)
    assert response.status_code == 400
    assert param in response.text or param.replace("documents", "input") in response.text


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/rerank", ASKED, "no reranker"),
        ("/rerank", ASKED, "no reranker"),
        ("/v1/classify", {"input": "x"}, "no classifier"),
        ("/classify", {"text": "x"}, "no classifier"),
    ],
)
async def test_a_model_without_a_head_says_so(backend: Backend, path: str, body: dict[str, Any], word: str) -> None:
    response = await backend.http.post(path, json=body)
    assert response.status_code == 400
    assert word in response.text


async def test_a_classifier_of_several_labels_is_no_reranker(backend: Backend) -> None:
    give_labels(backend, ["bad", "good"], "softmax")
    response = await backend.http.post("/v1/rerank", json=ASKED)
    assert response.status_code == 400
    assert "/v1/classify" in response.text


async def test_labels_and_their_probabilities(backend: Backend) -> None:
    give_labels(backend, ["bad", "good"], "softmax")
    backend.engine.vector = lambda prompt: [0.0, float(len(prompt) - 2)]
    found = await post(backend, "/v1/classify", input=["a", "abc"])
    assert [each["label"] for each in found["data"]] == ["bad", "good"]
    assert found["data"][1] == {
        "index": 1,
        "label": "good",
        "probs": pytest.approx([0.2689, 0.7311], abs=1e-3),
        "num_classes": 2,
    }
    assert (found["object"], found["usage"]["prompt_tokens"]) == ("list", 4)


@pytest.mark.parametrize(
    ("body", "many"), [({"text": "a"}, False), ({"text": ["a"]}, True), ({"input_ids": [77]}, False)]
)
async def test_the_native_form_has_the_raw_numbers(reranker: Backend, body: dict[str, Any], many: bool) -> None:
    found = await post(reranker, "/classify", **body)
    item = found[0] if many else found
    assert len(item["embedding"]) == 1
    assert item["meta_info"]["prompt_tokens"] == 1


@pytest.mark.parametrize("body", [{}, {"input": "a", "text": "b"}, {"input": []}, {"input": [99_999_999]}])
async def test_what_cannot_be_classified(reranker: Backend, body: dict[str, Any]) -> None:
    response = await reranker.http.post("/v1/classify", json=body)
    assert response.status_code == 400
    assert "input" in response.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": [[5], [6, SILENT_TOKEN]]}),
        ("/v1/score", {"query": [5], "items": [[6], [SILENT_TOKEN]], "label_token_ids": [7], "apply_softmax": True}),
    ],
)
async def test_what_is_aborted_after_its_head_is_cut(backend: Backend, path: str, body: dict[str, Any]) -> None:
    """No second head comes where the body is."""
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(backend.url.rsplit(":", 1)[1]))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200")
    backend.frontend.abort(None)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": [5]}),
        ("/encode", {"input_ids": [5]}),
        ("/v1/score", {"query": [5], "items": [[6]], "label_token_ids": [7], "apply_softmax": True}),
    ],
)
async def test_what_is_aborted_before_its_head_is_an_error(backend: Backend, path: str, body: dict[str, Any]) -> None:
    """Nothing failed here: no breaker counts it, no client sends it again."""
    backend.engine.going.clear()
    asked = asyncio.create_task(backend.http.post(path, json=body))
    async with asyncio.timeout(10):
        while not backend.frontend.unfinished:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    backend.frontend.abort(None)
    backend.engine.going.set()
    response = await asked
    assert response.status_code == 499
    assert "ended before its result was there: Aborted by a client's request." in response.text
    assert "ClientClosedRequestError" in response.text
