"""A conversation as the chat routes get it: its fields, its checks, and how it is started.

``/v1/messages`` and ``/v1/responses`` are translated into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import structs
from pydantic import Field, StrictInt

from backend.api.answer_grammar import answer_grammar
from backend.api.context import Serving
from backend.api.errors import SchemaError, unsupported
from backend.api.logprobs import MOST_LIKELY
from backend.api.openai import OPENAI_NOT_YET, OpenAIRequest
from backend.api.parsed_answers import ParsedAnswers
from backend.api.parsers import AnswerParser
from backend.api.parsers.harmony import REASONING
from backend.api.parsers.registry import HARMONY, reasoning_markers
from backend.api.sampling_fields import OPENAI_NAMES, UNBOUNDED
from backend.api.schema import Body, Harmless
from backend.api.tools import allowed_tools, demanded_tools, offered_tools
from backend.frontend.generation import Generation
from backend.frontend.intake import ChatPrompt, Prompt, RequestOptions
from backend.grammar import GrammarSpec
from backend.messages import LogprobSpec
from backend.prompt.messages import REASONING_FIELDS
from backend.sampling_params import SamplingParams

CHAT_NOT_YET: Harmless = {
    **OPENAI_NOT_YET,
    "functions": (),
    "function_call": ("none",),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "documents": (),
    "chat_template": (),
}
CHAT_NAMES = {**OPENAI_NAMES, "prompt": "messages"}
NEWER_CHAT_NAMES = {**CHAT_NAMES, "max_new_tokens": "max_completion_tokens"}
INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", *REASONING_FIELDS)  # in an assistant's turn
TokenCount = Annotated[int, Field(ge=1)]


class Message(Body):
    """One message; fields beyond these are the template's business."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(OpenAIRequest):
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    input_ids: list[StrictInt] | None = None  # the rendered conversation; the messages are then not read
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: str | dict[str, Any] = "auto"
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LIKELY)] = 0
    parallel_tool_calls: bool = True
    separate_reasoning: bool = True
    stream_reasoning: bool = True
    reasoning_effort: str | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @property
    def output_limit(self) -> int | None:
        """The newer name wins; None is as much as fits."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


async def start_chat(
    serving: Serving, body: ChatRequest, rid: str, constraint: GrammarSpec | None
) -> tuple[Generation, ParsedAnswers]:
    """Check and submit a conversation, whose answer has to follow ``constraint``. Raises :class:`RequestError`."""
    if body.top_logprobs and not body.logprobs:
        message = f"top_logprobs needs logprobs: true, got top_logprobs {body.top_logprobs}"
        raise SchemaError(message, param="top_logprobs")
    allowed, choice = allowed_tools(body.tools, body.tool_choice)
    tools = offered_tools(allowed, choice, serving.parsers)
    demanded = demanded_tools(tools, choice)
    grammar = answer_grammar(serving.parsers, constraint, tools, demanded, several=body.parallel_tool_calls)
    parses = bool(tools and serving.parsers.tool_call) or bool(body.separate_reasoning and serving.parsers.reasoning)
    start, end = _reasoning_tokens(serving)
    options = _options(body, rid, parses)
    if grammar:
        options = structs.replace(options, grammar=grammar, reasoning_start=start, reasoning_end=end)
    generation = await serving.frontend.submit([_prompt(body, tools)], [options])

    def make_parser(prompt_end: str) -> AnswerParser | None:
        return serving.parsers.parser(
            reasoning=body.separate_reasoning, tools=tools, demanded=bool(demanded), prompt_end=prompt_end
        )

    answers = ParsedAnswers(
        make_parser if parses or demanded else None,
        serving.frontend.intake.tokenizer,
        one_call=not body.parallel_tool_calls,
        whole_reasoning=not body.stream_reasoning,
        reasoning_end=end,
        reasoning_spans=_reasoning_spans(serving),
    )
    return generation, answers


def _reasoning_tokens(serving: Serving) -> tuple[int | None, int | None]:
    """The tokens around the reasoning: only behind it can an answer follow a grammar."""
    markers = reasoning_markers(serving.parsers.reasoning)
    tokenizer = serving.frontend.intake.tokenizer
    if markers is None or tokenizer is None:
        return None, None
    return tokenizer.token_to_id(markers.start), tokenizer.token_to_id(markers.end)


def _reasoning_spans(serving: Serving) -> tuple[list[int], list[int]] | None:
    """What gpt-oss's messages of reasoning begin and end with."""
    tokenizer = serving.frontend.intake.tokenizer
    if serving.parsers.reasoning != HARMONY or tokenizer is None:
        return None
    begin, end = (tokenizer.encode(text, add_special_tokens=False) for text in REASONING)
    return begin, end


def chat_prompt(serving: Serving, body: ChatRequest) -> Prompt:
    """The prompt of a conversation, as ``start_chat`` submits it."""
    return _prompt(body, offered_tools(*allowed_tools(body.tools, body.tool_choice), serving.parsers))


def _prompt(body: ChatRequest, tools: list[dict[str, Any]]) -> Prompt:
    if body.input_ids is not None:
        return body.input_ids
    for position, message in enumerate(body.messages):
        _check_message(message, f"messages.{position}")
    if body.continue_final_message and body.messages[-1]["role"] != "assistant":
        raise SchemaError(
            f"continue_final_message needs an assistant message at the end, got role {body.messages[-1]['role']!r}",
            param="continue_final_message",
        )
    options: dict[str, Any] = {
        **({} if body.reasoning_effort is None else {"reasoning_effort": body.reasoning_effort}),
        **body.chat_template_kwargs,
        "add_generation_prompt": body.add_generation_prompt,
        "continue_final_message": body.continue_final_message,
    }
    if tools:
        options["tools"] = tools
    return ChatPrompt(body.messages, options)


def _check_message(message: Mapping[str, Any], where: str) -> None:
    read = Message.read(message, where)
    content = read.content
    if content is None and not (read.role == "assistant" and any(message.get(name) for name in INSTEAD_OF_CONTENT)):
        raise SchemaError(f"{where}.content is missing", param=f"{where}.content")
    for position, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type")
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            raise unsupported(f"{where}.content.{position}.type", part.get("type"))


def _options(body: ChatRequest, rid: str, parses: bool) -> RequestOptions:
    return RequestOptions(
        sampling=_sampling(body, parses),
        rid=rid,
        streaming=body.stream,
        fit_output=body.output_limit is None,
        namespace=body.namespace,
        logprobs=LogprobSpec(top=body.top_logprobs) if body.logprobs else None,
        priority=body.priority,
        names=CHAT_NAMES if body.max_completion_tokens is None else NEWER_CHAT_NAMES,
    )


def _sampling(body: ChatRequest, parses: bool) -> SamplingParams:
    """A parser must see the special tokens: they are the marks it looks for."""
    if parses:
        body = body.model_copy(update={"skip_special_tokens": False})
    return body.to_sampling(UNBOUNDED if body.output_limit is None else body.output_limit)
