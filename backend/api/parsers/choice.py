"""Which formats a server reads: as its flags say, or as its model's chat template shows."""

from __future__ import annotations

from dataclasses import dataclass

from backend.api.parsers.answer import AnswerParser
from backend.api.parsers.registry import DEMANDED, HARMONY, make_parser, reasoning_parser_for, tool_parser_for
from backend.api.parsers.tool_parser import Tools

AUTO, NONE = "auto", "none"


@dataclass(frozen=True, slots=True)
class ParserChoice:
    """Names of formats; None where the model's output is left as it is."""

    reasoning: str | None = None
    tool_call: str | None = None

    def parser(
        self, *, reasoning: bool, tools: Tools, demanded: bool = False, prompt_end: str = ""
    ) -> AnswerParser | None:
        """The parser of one answer; None when there is nothing to look for.

        ``demanded``: the answer is a list of calls and nothing else, unless the format keeps its own form.
        """
        reasoning_name = self.reasoning if reasoning else None
        if demanded and HARMONY not in (self.reasoning, self.tool_call):
            return make_parser(reasoning_name, DEMANDED, tools=tools, prompt_end=prompt_end)
        tool_call_name = (HARMONY if demanded else self.tool_call) if tools else None
        if reasoning_name is None and tool_call_name is None:
            return None
        return make_parser(reasoning_name, tool_call_name, tools=tools, prompt_end=prompt_end)


def choose_parsers(reasoning: str, tool_call: str, template: str) -> ParserChoice:
    """Resolve ``auto`` and ``none``; ``template`` is the text of the model's chat template, empty without one."""
    if reasoning == AUTO:
        reasoning_name = reasoning_parser_for(template)
    else:
        reasoning_name = None if reasoning == NONE else reasoning
    if tool_call == AUTO:
        tool_call_name = tool_parser_for(template)
    else:
        tool_call_name = None if tool_call == NONE else tool_call
    return ParserChoice(reasoning_name, tool_call_name)
