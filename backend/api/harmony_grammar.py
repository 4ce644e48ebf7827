"""Constraints in gpt-oss's format: reasoning and remarks stay free, answers and calls follow what was asked for.

The model goes on behind ``<|start|>assistant``. Messages on the channels analysis and commentary may come first; the
last one is an answer on the final channel or a call, of which there is one: the model stops behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.api.call_grammars import arguments_schema
from backend.grammar import GrammarSpec, compose, literal
from backend.grammar.spec import make_spec

_BEFORE = """%llguidance {}
start: message* last
message: "<|channel|>" ("analysis" | "commentary") "<|message|>" said "<|start|>assistant"
said[lazy]: TEXT "<|end|>"
TEXT: /(.|\\n)*/"""
_FREE = 'final: "<|channel|>final<|message|>" TEXT'
_CONSTRAINED = (
    'final: "<|channel|>final" | "<|channel|>final <|constrain|>json"\nfinal_answer: final "<|message|>" @answer'
)


def harmony_grammar(
    answer: GrammarSpec | None, tools: Sequence[Mapping[str, Any]], *, demanded: bool = False
) -> GrammarSpec:
    """The last message: an answer (that follows ``answer``, if any) unless a call is ``demanded``, or a call."""
    parts = {f"arguments_{index}": make_spec("json_schema", arguments_schema(tool)) for index, tool in enumerate(tools)}
    rules = [_call(tool["function"]["name"], index) for index, tool in enumerate(tools)]
    last = [f"call_{index}" for index in range(len(tools))]
    if not demanded:
        rules.append(_FREE if answer is None else _CONSTRAINED)
        last.append("final" if answer is None else "final_answer")
        parts |= {} if answer is None else {"answer": answer}
    return compose("\n".join([_BEFORE, f"last: {' | '.join(last)}", *rules]), parts)


def _call(name: str, index: int) -> str:
    """The recipient may stand on either side of the channel."""
    heads = (f"<|channel|>commentary to=functions.{name} ", f" to=functions.{name}<|channel|>commentary ")
    either = " | ".join(map(literal, heads))
    return f'call_{index}: ({either}) "<|constrain|>json<|message|>" @arguments_{index}'
