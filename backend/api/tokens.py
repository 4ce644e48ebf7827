"""``/tokenize`` and ``/detokenize``: what the model reads for a text or a conversation, and the way back."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import StrictInt

from backend.api.context import CONTEXT
from backend.api.errors import SchemaError, json_response
from backend.api.openai import DEFAULT_MODEL, check_model
from backend.api.schema import Body, parse_json
from backend.frontend.errors import RequestError
from backend.frontend.intake import ChatPrompt


class TokenizeRequest(Body):
    model: str = DEFAULT_MODEL
    prompt: str | list[str] | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None  # a text gets the model's; a rendered conversation brings its own
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    tools: list[dict[str, Any]] = []
    chat_template_kwargs: dict[str, Any] = {}


class DetokenizeRequest(Body):
    model: str = DEFAULT_MODEL
    tokens: list[StrictInt] | list[list[StrictInt]]
    skip_special_tokens: bool = True


async def tokenize(request: web.Request) -> web.Response:
    serving = request.app[CONTEXT].serving()
    body = TokenizeRequest.read(parse_json(await request.read()))
    check_model(body.model, serving.model)
    if (body.prompt is None) == (body.messages is None):
        raise SchemaError("Give either prompt or messages, and not both.", param="prompt")
    prompts: list[str | ChatPrompt] = [_chat(body)] if body.prompt is None else _texts(body.prompt)
    tokens = [await serving.frontend.tokenize(prompt, body.add_special_tokens) for prompt in prompts]
    many = isinstance(body.prompt, list)
    return json_response(
        {
            "tokens": tokens if many else tokens[0],
            "count": [len(ids) for ids in tokens] if many else len(tokens[0]),
            "max_model_len": serving.ready.context_length,
        }
    )


async def detokenize(request: web.Request) -> web.Response:
    """``text`` is SGLang's name for the answer, ``prompt`` vLLM's."""
    serving = request.app[CONTEXT].serving()
    body = DetokenizeRequest.read(parse_json(await request.read()))
    check_model(body.model, serving.model)
    tokenizer = serving.frontend.intake.tokenizer
    if tokenizer is None:
        raise RequestError("This server runs with --skip-tokenizer-init: it has no tokenizer.")
    many = bool(body.tokens) and isinstance(body.tokens[0], list)
    batch: list[Any] = body.tokens if many else [body.tokens]
    for ids in batch:
        serving.frontend.intake.check_ids(ids, "tokens")
    texts = [tokenizer.decode(ids, skip_special_tokens=body.skip_special_tokens) for ids in batch]
    answer = texts if many else texts[0]
    return json_response({"text": answer, "prompt": answer})


def _chat(body: TokenizeRequest) -> ChatPrompt:
    options = {
        **body.chat_template_kwargs,
        "add_generation_prompt": body.add_generation_prompt,
        "continue_final_message": body.continue_final_message,
    }
    if body.tools:
        options["tools"] = body.tools
    return ChatPrompt(body.messages or [], options)


def _texts(prompt: str | list[str]) -> list[str | ChatPrompt]:
    return [prompt] if isinstance(prompt, str) else list(prompt)
