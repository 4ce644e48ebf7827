"""The formats by the names that users give them, and the choice by model."""

from __future__ import annotations

from backend.api.parsers.answer import AnswerParser, SplitAnswer
from backend.api.parsers.call_form import CallForm
from backend.api.parsers.deepseek import DeepSeekParser
from backend.api.parsers.deepseek_dsml import DeepSeekDsmlParser
from backend.api.parsers.demanded import DemandedCallsParser
from backend.api.parsers.gemma import GemmaParser
from backend.api.parsers.glm import GlmParser
from backend.api.parsers.harmony import HarmonyParser
from backend.api.parsers.hermes import HermesParser
from backend.api.parsers.kimi import KimiParser
from backend.api.parsers.llama3 import Llama3Parser
from backend.api.parsers.mistral import MistralParser
from backend.api.parsers.pythonic import PythonicParser
from backend.api.parsers.qwen3_coder import Qwen3CoderParser
from backend.api.parsers.reasoning import REASONING_FORMATS, Markers, ReasoningSplitter
from backend.api.parsers.tool_parser import ToolParser, Tools

HARMONY = "gpt-oss"
TOOL_FORMATS: dict[str, type[ToolParser]] = {
    "llama3": Llama3Parser,
    "qwen": HermesParser,
    "hermes": HermesParser,
    "qwen25": HermesParser,
    "qwen3_coder": Qwen3CoderParser,
    "mistral": MistralParser,
    "deepseekv3": DeepSeekParser,
    "deepseekv31": DeepSeekParser,
    "deepseekv32": DeepSeekDsmlParser,
    "deepseekv4": DeepSeekDsmlParser,
    "glm": GlmParser,
    "glm45": GlmParser,
    "glm47": GlmParser,
    "kimi_k2": KimiParser,
    "gemma4": GemmaParser,
    "pythonic": PythonicParser,
}
REASONING_ALIASES = {
    "qwen3-thinking": "qwen3",
    "glm45": "glm",
    "kimi_k2": "kimi",
    "deepseek-v3": "deepseek-r1",
    "gemma4": "gemma",
}
DEMANDED = "demanded"  # no model's own format
TOOL_PARSERS = (*TOOL_FORMATS, HARMONY)
REASONING_PARSERS = (*REASONING_FORMATS, *REASONING_ALIASES, HARMONY)

_Signs = tuple[tuple[tuple[str, ...], str | None], ...]

# What a chat template shows of its model's format; the first that fits.
_TOOL_SIGNS: _Signs = (
    (("<|channel|>", "commentary"), HARMONY),
    (("<|tool_call>",), "gemma4"),
    (("｜DSML｜",), "deepseekv32"),
    (("<｜tool▁calls▁begin｜>",), "deepseekv3"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<tool_calls>[",), None),  # a list of calls: not built
    (("<tool_call>", "<function="), "qwen3_coder"),
    (("<tool_call>", "<arg_key>"), "glm"),
    (("<tool_call>", '"name'), "hermes"),
    (("<tool_call>", '\\"name'), "hermes"),  # inside a string of the template
    (("[func_name1(",), "pythonic"),
    (('"parameters"', "<|start_header_id|>"), "llama3"),
)
_REASONING_SIGNS: _Signs = (
    (("<|channel|>", "analysis"), HARMONY),
    (("<|channel>thought",), "gemma"),
    (("[THINK]",), "mistral"),
    (("<|tool_calls_section_begin|>", "<think>"), "kimi"),
    (("<tool_call>", "<arg_key>", "<think>"), "glm"),
    (("<tool_call>", "<think>"), "qwen3"),
    (("<think>",), "deepseek-r1"),
)


def tool_parser_for(template: str) -> str | None:
    """The name of the tool-call format that a chat template shows, or None."""
    return _first_sign(template, _TOOL_SIGNS)


def reasoning_parser_for(template: str) -> str | None:
    """The name of the reasoning format that a chat template shows, or None."""
    return _first_sign(template, _REASONING_SIGNS)


def make_parser(
    reasoning: str | None, tool_call: str | None, *, tools: Tools = (), prompt_end: str = ""
) -> AnswerParser:
    """The parser of one answer. Names are those of ``REASONING_PARSERS`` and ``TOOL_PARSERS``, None for neither.

    ``prompt_end``: the last characters of the prompt, which tell whether it opened the reasoning already.
    """
    if tool_call == DEMANDED:
        return SplitAnswer(reasoning_splitter(reasoning, prompt_end), DemandedCallsParser(tools))
    if HARMONY in (reasoning, tool_call):
        return HarmonyParser()
    tool_parser = None if tool_call is None else TOOL_FORMATS[tool_call](tools)
    return SplitAnswer(reasoning_splitter(reasoning, prompt_end), tool_parser)


def call_form(tool_call: str | None) -> CallForm | None:
    """How calls of this format are written, where a grammar can hold them to it."""
    parser = None if tool_call is None else TOOL_FORMATS.get(tool_call)
    return None if parser is None else parser.form


def reasoning_splitter(name: str | None, prompt_end: str) -> ReasoningSplitter | None:
    """None where nothing is split: without a format, or with one whose parser does everything."""
    markers = reasoning_markers(name)
    return None if markers is None else ReasoningSplitter(markers, inside=prompt_end.rstrip().endswith(markers.start))


def reasoning_markers(name: str | None) -> Markers | None:
    """What stands around the reasoning in the format of this name."""
    return None if name is None else REASONING_FORMATS.get(REASONING_ALIASES.get(name, name))


def _first_sign(template: str, signs: _Signs) -> str | None:
    return next((name for marks, name in signs if all(mark in template for mark in marks)), None)
