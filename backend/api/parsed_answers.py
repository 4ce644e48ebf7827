"""What the answers of one call say, piece by piece: reasoning, content and tool calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from backend.api.parsers import AnswerParser, Parsed
from backend.api.parsers.events import join
from backend.api.parsers.spans import tokens_between
from backend.frontend.intake import TokenizerLike
from backend.frontend.request import RequestState

PROMPT_END_TOKENS = 16  # enough to see the marker with which a prompt opens the reasoning

MakeParser = Callable[[str], AnswerParser | None]  # from the end of the prompt


@dataclass(slots=True)
class _Answer:
    parser: AnswerParser | None
    calls: int = 0
    reasoned: bool = False
    held: list[Parsed] = field(default_factory=list)  # reasoning that waits for its end


class ParsedAnswers:
    """Reads the answers of one call; each piece is given out once."""

    def __init__(
        self,
        make_parser: MakeParser | None,
        tokenizer: TokenizerLike | None,
        *,
        one_call: bool = False,
        whole_reasoning: bool = False,
        reasoning_end: int | None = None,
        reasoning_spans: tuple[list[int], list[int]] | None = None,
    ) -> None:
        """``make_parser``: None where there is nothing to look for.

        ``one_call``: of several calls the first counts. ``whole_reasoning``: it comes in one piece.

        ``reasoning_end``: the token that ends the reasoning, where one token does. ``reasoning_spans``: where there may
        be several, the tokens that begin and end each.
        """
        self._make_parser = make_parser
        self._tokenizer = tokenizer
        self._one_call = one_call
        self._whole_reasoning = whole_reasoning
        self._reasoning_end = reasoning_end
        self._reasoning_spans = reasoning_spans
        self._answers: dict[int, _Answer] = {}

    def begun(self, state: RequestState) -> bool:
        """Whether anything was taken for this request."""
        return state.uid in self._answers

    def take(self, state: RequestState) -> Parsed:
        """What is new since the last call; calls have ids."""
        answer = self._answers.get(state.uid)
        if answer is None:
            make = self._make_parser
            parser = None if make is None else make(self._prompt_end(state))
            answer = self._answers[state.uid] = _Answer(parser)
        text = state.take()
        if answer.parser is None:
            return Parsed(content=text)
        parsed = answer.parser.push(text)
        if state.finish is not None:
            parsed = join([parsed, answer.parser.finish(truncated=state.finish.kind != "stop")])
        answer.reasoned = answer.reasoned or bool(parsed.reasoning)
        return self._name_calls(answer, self._gather(answer, parsed, state.finish is not None))

    def unparsed(self, state: RequestState) -> bool:
        """Whether a text that has begun is given out as it is: ``state.take()`` does what :meth:`take` does."""
        answer = self._answers.get(state.uid)
        return answer is not None and answer.parser is None

    def calls(self, state: RequestState) -> int:
        """How many calls were given out for this request."""
        answer = self._answers.get(state.uid)
        return 0 if answer is None else answer.calls

    def reasoning_tokens(self, state: RequestState) -> int:
        """How many of its tokens are reasoning, with the marks around it; 0 where no token ends one."""
        answer, end = self._answers.get(state.uid), self._reasoning_end
        if answer is None or not answer.reasoned:
            return 0
        if self._reasoning_spans is not None:
            return tokens_between(state.output_ids, *self._reasoning_spans)
        if end is None:
            return 0
        return state.output_ids.index(end) + 1 if end in state.output_ids else state.completion_tokens

    def _gather(self, answer: _Answer, parsed: Parsed, finished: bool) -> Parsed:
        if not self._whole_reasoning:
            return parsed
        answer.held.append(parsed)
        if not (parsed.content or parsed.calls or finished):
            return Parsed()
        gathered, answer.held = join(answer.held), []
        return gathered

    def _name_calls(self, answer: _Answer, parsed: Parsed) -> Parsed:
        calls = parsed.calls
        if self._one_call:
            calls = calls[: 1 - answer.calls]
        answer.calls += len(calls)
        if not calls or answer.parser is None:
            return parsed._replace(calls=calls)
        named = tuple(call if call.id else call._replace(id=answer.parser.call_id()) for call in calls)
        return parsed._replace(calls=named)

    def _prompt_end(self, state: RequestState) -> str:
        if self._tokenizer is None:
            return ""
        return self._tokenizer.decode(state.prompt_ids[-PROMPT_END_TOKENS:], skip_special_tokens=False)
