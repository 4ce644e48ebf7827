"""``/v1/rerank`` (SGLang's form), ``/rerank`` and ``/v2/rerank`` (Jina's, Cohere's, vLLM's): documents, best first."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from backend.api.answers import answer_whole
from backend.api.context import CONTEXT
from backend.api.errors import SchemaError
from backend.api.openai import DEFAULT_MODEL, check_model, usage
from backend.api.rerankers import Reranker, reranker_of
from backend.api.schema import NOT_YET, RequestFields, parse_json, refuse_not_yet
from backend.frontend.request import RequestState

RERANK_NAMES = {"input_ids": "documents", "prompt": "documents", "messages": "documents"}
Ranked = list[tuple[float, RequestState]]  # best first; a state's index is its document's


class RerankRequest(RequestFields):
    model: str = DEFAULT_MODEL
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str | dict[str, Any]], Field(min_length=1)]
    instruct: str = ""
    top_n: Annotated[int, Field(ge=0)] = 0  # 0: all
    return_documents: bool = True

    def texts(self) -> list[str]:
        """The documents as texts; clients of Cohere's and Jina's write ``{"text": ...}``, too."""
        return [_text(each, position) for position, each in enumerate(self.documents)]


def _text(document: str | dict[str, Any], position: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str) or not text.strip():
        name = f"documents.{position}"
        raise SchemaError(f"{name} must be a text that is not empty, or an object with one as text", param=name)
    return text


async def rerank(request: web.Request) -> web.StreamResponse:
    """SGLang's form: a list of scores."""
    return await _answer(request, _sglang_body)


async def rerank_results(request: web.Request) -> web.StreamResponse:
    """The form that Jina, Cohere and vLLM share."""
    return await _answer(request, _results_body)


async def _answer(
    request: web.Request, build: Callable[[RerankRequest, list[str], Ranked, str], Any]
) -> web.StreamResponse:
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, NOT_YET)
    body = RerankRequest.read(data)
    check_model(body.model, serving.model)
    texts = body.texts()
    reranker = reranker_of(serving)
    prompts = [reranker.prompt(body.query, text, body.instruct) for text in texts]
    option = reranker.option(body, RERANK_NAMES)
    generation = await serving.frontend.submit(prompts, [option] * len(prompts))
    return await answer_whole(
        request,
        generation,
        lambda states: build(body, texts, _ranked(reranker, states, body.top_n), serving.model.name),
    )


def _ranked(reranker: Reranker, states: list[RequestState], top_n: int) -> Ranked:
    scored = [(reranker.score(state), state) for state in states]
    scored.sort(key=lambda pair: (-pair[0], pair[1].index))
    return scored[: top_n or None]


def _sglang_body(body: RerankRequest, texts: list[str], ranked: Ranked, _model: str) -> list[dict[str, Any]]:
    return [
        {
            "score": score,
            **({"document": texts[state.index]} if body.return_documents else {}),
            "index": state.index,
            "meta_info": {"id": state.rid, "prompt_tokens": state.prompt_tokens, "cached_tokens": state.cached_tokens},
        }
        for score, state in ranked
    ]


def _results_body(body: RerankRequest, texts: list[str], ranked: Ranked, model: str) -> dict[str, Any]:
    results = [
        {
            "index": state.index,
            **({"document": {"text": texts[state.index]}} if body.return_documents else {}),
            "relevance_score": score,
        }
        for score, state in ranked
    ]
    tokens = usage([state for _, state in ranked], 1)["prompt_tokens"]
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results,
    }
