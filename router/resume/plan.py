"""Which requests can be continued elsewhere after a cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec


class Dialect(Enum):
    CHAT = auto()
    COMPLETIONS = auto()
    GENERATE = auto()


DIALECTS = {
    "/v1/chat/completions": Dialect.CHAT,
    "/v1/completions": Dialect.COMPLETIONS,
    "/generate": Dialect.GENERATE,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that can be continued: its fields as they came."""

    dialect: Dialect
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request cannot be continued; for the log."""

    reason: str


_STRUCTURED = (
    "json_schema", "regex", "ebnf", "structural_tag", "structured_outputs", "guided_json", "guided_regex",
    "guided_choice", "guided_grammar", "guided_whitespace_pattern",
)  # fmt: skip
_LOGPROBS = ("logprobs", "top_logprobs", "prompt_logprobs", "return_logprob", "top_logprobs_num", "token_ids_logprob")
_COUNTED_LOGPROBS = ("logprobs", "prompt_logprobs")  # 0 asks for those of the chosen tokens
_SEEDS = ("seed", "sampling_seed")
_TOOLS = ("tools", "functions", "function_call")
_UNKNOWN = ("input_embeds", "return_hidden_states", "echo", "use_beam_search", "suffix")


def plan(path: str, body: bytes) -> Plan | Refused:
    """Judge a POST to ``path``."""
    dialect = DIALECTS.get(path)
    if dialect is None:
        return Refused(f"streams of {path} cannot be continued")
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Refused("its body is not a JSON object")
    if fields.get("stream") is not True:
        return Refused("it is no stream")
    reason = _objection(fields) or _PROMPTS[dialect](fields)
    return Refused(reason) if reason else Plan(dialect, fields)


def _objection(fields: dict[str, Any]) -> str:
    sampling = fields.get("sampling_params")
    every = {**fields, **(sampling if isinstance(sampling, dict) else {})}
    if any((every.get(name) or 1) != 1 for name in ("n", "best_of")):
        return "it asks for several answers (n)"
    for names, what in ((_TOOLS, "tools"), (_LOGPROBS, "logprobs"), (_STRUCTURED, "structured output")):
        if name := _used(every, names):
            return f"it uses {what} ({name})"
    if name := next((name for name in _COUNTED_LOGPROBS if type(every.get(name)) is int), ""):
        return f"it uses logprobs ({name})"
    if name := next((name for name in _SEEDS if every.get(name) is not None), ""):
        return f"its sampling is seeded ({name})"
    wanted = fields.get("response_format")
    if wanted is not None and not (isinstance(wanted, dict) and wanted.get("type") == "text"):
        return "it uses structured output (response_format)"
    name = _used(every, _UNKNOWN)
    return f"it uses {name}" if name else ""


def _used(fields: dict[str, Any], names: Iterable[str]) -> str:
    return next((name for name in names if fields.get(name) not in (None, False, [], {}, 0, "")), "")


def _chat(fields: dict[str, Any]) -> str:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return "its messages are no list of objects"
    if fields.get("continue_final_message") and not (messages and isinstance(messages[-1].get("content"), str)):
        return "it continues a message that is not plain text"
    return ""


def _completions(fields: dict[str, Any]) -> str:
    return "" if _single(fields.get("prompt")) else "it has several prompts"


def _generate(fields: dict[str, Any]) -> str:
    prompt = fields.get("input_ids") if fields.get("text") is None else fields.get("text")
    if not _single(prompt):
        return "it has several prompts"
    sampling = fields.get("sampling_params")
    return "" if sampling is None or isinstance(sampling, dict) else "its sampling_params are no object"


def _single(prompt: Any) -> bool:
    """One prompt: text, or a list of token ids."""
    return isinstance(prompt, str) or (
        isinstance(prompt, list) and bool(prompt) and all(type(one) is int for one in prompt)
    )


_PROMPTS = {Dialect.CHAT: _chat, Dialect.COMPLETIONS: _completions, Dialect.GENERATE: _generate}
