"""Which grammar an answer follows: what the request asks of answers and calls, in the model's own format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.api.call_grammars import calls_beside, is_strict
from backend.api.constraints import calls_constraint
from backend.api.errors import SchemaError
from backend.api.harmony_grammar import harmony_grammar
from backend.api.parsers.choice import ParserChoice
from backend.api.parsers.registry import HARMONY, call_form
from backend.grammar import GrammarError, GrammarSpec

Tools = Sequence[Mapping[str, Any]]


def answer_grammar(
    parsers: ParserChoice, constraint: GrammarSpec | None, tools: Tools, demanded: Tools, *, several: bool
) -> GrammarSpec | None:
    """``tools`` are those that the model may call, ``demanded`` those of which it has to call one.

    Raises :class:`SchemaError` for demands that contradict each other.
    """
    if demanded and constraint is not None:
        raise SchemaError("an answer cannot be a demanded tool call and follow a constraint too", param="tool_choice")
    try:
        return _grammar(parsers, constraint, tools, demanded, several)
    except GrammarError as error:
        raise SchemaError(f"tools: {error}", param="tools") from None


def _grammar(
    parsers: ParserChoice, constraint: GrammarSpec | None, tools: Tools, demanded: Tools, several: bool
) -> GrammarSpec | None:
    strict = any(map(is_strict, tools))
    if HARMONY in (parsers.reasoning, parsers.tool_call):
        if not (constraint or demanded or strict):
            return None
        return harmony_grammar(constraint, demanded or tools, demanded=bool(demanded))
    if demanded:
        return calls_constraint(demanded, several=several)
    form = call_form(parsers.tool_call)
    if form is None or not tools or not (constraint or strict):
        return constraint
    return calls_beside(constraint, form, tools, several=several)
