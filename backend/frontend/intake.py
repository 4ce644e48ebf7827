"""What happens to a request before the scheduler sees it: rendered, tokenised, checked, numbered. No I/O."""

from __future__ import annotations

import itertools
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from backend.frontend.byte_detokenizer import ByteDetokenizer
from backend.frontend.detokenizer import CONTEXT, IncrementalDetokenizer
from backend.frontend.errors import RequestError
from backend.frontend.logprobs import Logprobs
from backend.frontend.request import RequestState
from backend.frontend.stop import FirstOf, StopMatcher, Stops
from backend.frontend.stop_regex import RegexMatcher, StopRegexError, compile_stop_regex
from backend.frontend.text import Detokenizer, TextStream
from backend.grammar import GrammarSpec
from backend.messages import LogprobSpec, NewRequest
from backend.prompt.errors import TemplateError
from backend.prompt.tokenizer import Tokenizer
from backend.sampling_params import SamplingError, SamplingParams

REASONING_TAIL = 16  # tokens at the end of a prompt in which a template closes the reasoning before it begins
NO_TOKENIZER = "This server runs with --skip-tokenizer-init: give token ids (input_ids), not text."


class TokenizerLike(Protocol):
    """What the frontend needs of a tokenizer (``backend.prompt.Tokenizer`` has it)."""

    @property
    def eos_token_ids(self) -> Sequence[int]: ...

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def encode_pair(self, first: str, second: str) -> list[int]: ...

    def token_to_id(self, token: str) -> int | None: ...

    def decode(
        self, token_ids: Sequence[int], skip_special_tokens: bool = True, spaces_between_special_tokens: bool = True
    ) -> str: ...


class TemplateLike(Protocol):
    """What the frontend needs of a chat template (``backend.prompt.ChatTemplate`` has it)."""

    def render(self, messages: Sequence[Any], **options: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation that the model's chat template turns into text. ``options`` are the template's own."""

    messages: list[dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that a model reads as a pair, as a reranker reads query and document."""

    first: str
    second: str


Prompt = str | list[int] | ChatPrompt | TextPair


@dataclass(frozen=True, slots=True)
class Limits:
    """What the running model allows. ``context_length`` counts prompt and output."""

    context_length: int
    vocab_size: int
    auto_truncate: bool = False  # cut what is too long instead of refusing it
    task: str = "generate"  # "generate", "embed" or "classify": what the model has a head for


class RequestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is to be answered, apart from its prompt."""

    sampling: SamplingParams
    rid: str = ""  # made up when empty
    streaming: bool = False
    fit_output: bool = False  # nobody asked for this many tokens: make max_new_tokens fit into the context
    namespace: str = ""
    priority: int = 0
    log_metrics: bool = True
    sample: int = 0  # which of the answers to its prompt it is
    logprobs: LogprobSpec | None = None
    pooling: str = ""  # instead of an output: "last" or "mean", an embedding; "classify", a number for each label
    grammar: GrammarSpec | None = None  # what the output must follow
    reasoning_start: int | None = None  # the token that begins a reasoning, unless the prompt has it already
    reasoning_end: int | None = None  # the token after which the grammar begins, unless the prompt has it already
    names: Mapping[str, str] = msgspec.field(default_factory=dict)  # what the client calls our fields, for errors


class Intake:
    """Turns prompts into requests. Raises :class:`RequestError` for those that cannot be served."""

    def __init__(
        self,
        tokenizer: TokenizerLike | None,
        template: TemplateLike | None,
        limits: Limits,
        eos_token_ids: Sequence[int] = (),
    ) -> None:
        """``eos_token_ids`` end an answer; the tokenizer's own are used when there is one and none are given."""
        self.tokenizer = tokenizer
        self._byte_tables = {skip: _byte_table(tokenizer, skip=skip) for skip in (True, False)}
        self.template = template
        self.limits = limits
        self._eos = list(eos_token_ids or (tokenizer.eos_token_ids if tokenizer else ()))
        self._uids = itertools.count(1)

    def tokenize(self, prompt: Prompt, add_special_tokens: bool | None = None) -> list[int]:
        """The token ids of a prompt; a rendered conversation brings its own special tokens, a text gets the model's.

        ``add_special_tokens`` decides it for either.
        """
        if isinstance(prompt, list):
            ids = prompt
        elif isinstance(prompt, str):
            ids = self._encode(prompt, add_special_tokens is not False) if prompt else []
        elif isinstance(prompt, TextPair):
            ids = self._encode_pair(prompt)
        else:
            ids = self._encode(self._render(prompt), bool(add_special_tokens))
        if not ids:
            raise RequestError("The prompt is empty: give some text or at least one token id.", param="prompt")
        return ids

    def check_ids(self, ids: list[int], param: str = "input_ids") -> None:
        """Raise :class:`RequestError` for an id that is not in the vocabulary."""
        if ids and (min(ids) < 0 or max(ids) >= self.limits.vocab_size):
            wrong = next(each for each in ids if not 0 <= each < self.limits.vocab_size)
            raise RequestError(
                f"token id {wrong} is not in the model's vocabulary of {self.limits.vocab_size} ids", param=param
            )

    def accept(
        self, prompt_ids: list[int], options: RequestOptions, index: int, now: float
    ) -> tuple[RequestState, NewRequest]:
        """Check lengths and parameters and number the request. ``now`` is monotonic seconds."""
        self._check_task(options)
        self.check_ids(prompt_ids)
        prompt_ids, sampling = self._fit(prompt_ids, options)
        check_sampling(sampling)
        self._check_stop(sampling)
        stop_ids = self._stop_ids(sampling)
        if options.logprobs is not None:
            self.check_ids(options.logprobs.ids, "token_ids_logprob")
        if not -(2**63) <= options.priority < 2**63:
            raise RequestError(f"priority must be an integer of 64 bits, got {options.priority}", param="priority")
        state = RequestState(
            uid=next(self._uids),
            rid=options.rid or uuid.uuid4().hex,
            index=index,
            sample=options.sample,
            prompt_ids=prompt_ids,
            sampling=sampling,
            created=now,
            text_stream=self._text_stream(prompt_ids, sampling),
            streaming=options.streaming,
            log_metrics=options.log_metrics,
            structured=options.grammar is not None,
            logprobs=None if options.logprobs is None else Logprobs(options.logprobs),
        )
        after = self._grammar_after(prompt_ids, options)
        message = NewRequest(
            uid=state.uid,
            input_ids=struct.pack(f"<{len(prompt_ids)}i", *prompt_ids),  # faster than through an array
            sampling=sampling,
            stop_token_ids=stop_ids,
            namespace=options.namespace,
            priority=options.priority,
            logprobs=options.logprobs,
            grammar=options.grammar,
            grammar_after=after,
            grammar_unless=_grammar_unless(prompt_ids, options) if after >= 0 else -1,
            pooling=options.pooling,
        )
        return state, message

    def _check_task(self, options: RequestOptions) -> None:
        """Raise :class:`RequestError` for what the model has no head for. Embeddings need none."""
        task = self.limits.task
        if not options.pooling and task != "generate":
            purpose = "embeddings (/v1/embeddings)" if task == "embed" else "classification (/v1/classify)"
            raise RequestError(f"The model writes no text: it is for {purpose}.")
        if options.pooling == "classify" and task != "classify":
            raise RequestError("The model has no labels: it is no classifier (...ForSequenceClassification).")

    def _grammar_after(self, prompt_ids: list[int], options: RequestOptions) -> int:
        if options.grammar is None:
            return -1
        if self.tokenizer is None:
            raise RequestError("This server runs with --skip-tokenizer-init: it cannot constrain an output.")
        end = options.reasoning_end
        return -1 if end is None or end in prompt_ids[-REASONING_TAIL:] else end

    def _check_stop(self, sampling: SamplingParams) -> None:
        for name, value in (("stop", sampling.stop), ("stop_regex", sampling.stop_regex)):
            if value and self.tokenizer is None:
                raise RequestError(
                    "This server runs with --skip-tokenizer-init and cannot look for stop strings: "
                    f"give stop_token_ids, not {name} (got {value!r}).",
                    param=name,
                )

    def _stop_ids(self, sampling: SamplingParams) -> list[int]:
        """What ends the answer. Ids beyond the vocabulary, as clients of other models send them, are never sampled.

        Raises :class:`RequestError` for a token outside of it that would have to be sampled.
        """
        self.check_ids(list(sampling.logit_bias), "logit_bias")
        wanted = sampling.stop_token_ids if sampling.ignore_eos else [*sampling.stop_token_ids, *self._eos]
        ids = [token for token in dict.fromkeys(wanted) if token < self.limits.vocab_size]
        if sampling.min_new_tokens and len(ids) == self.limits.vocab_size:
            raise RequestError(
                f"stop_token_ids names every token, so that min_new_tokens={sampling.min_new_tokens} allows none",
                param="stop_token_ids",
            )
        return ids

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        if self.tokenizer is None:
            raise RequestError(NO_TOKENIZER, param="prompt")
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def _encode_pair(self, pair: TextPair) -> list[int]:
        if self.tokenizer is None:
            raise RequestError(NO_TOKENIZER, param="prompt")
        return self.tokenizer.encode_pair(pair.first, pair.second)

    def _render(self, prompt: ChatPrompt) -> str:
        if self.tokenizer is None:
            raise RequestError(NO_TOKENIZER, param="messages")
        if self.template is None:
            raise RequestError("The model has no chat template: start the server with --chat-template FILE.")
        try:
            return self.template.render(prompt.messages, **prompt.options)
        except TemplateError as error:  # its text is a sentence of its own
            raise RequestError(f"{str(error)[:1].upper()}{str(error)[1:]}", param="messages") from None
        except (ValueError, TypeError) as error:
            raise RequestError(f"The chat template refuses these messages: {error}", param="messages") from None

    def _fit(self, prompt_ids: list[int], options: RequestOptions) -> tuple[list[int], SamplingParams]:
        """Prompt and sampling within the context length, or an error that gives both numbers."""
        limit, sampling = self.limits.context_length, options.sampling
        count = len(prompt_ids)
        if count >= limit:
            if not self.limits.auto_truncate:
                raise RequestError(
                    f"The input ({count} tokens) is longer than the model's context length ({limit} tokens).",
                    param="prompt",
                )
            prompt_ids = prompt_ids[: limit - 1]
        room = limit - len(prompt_ids)
        if sampling.max_new_tokens <= room:
            return prompt_ids, sampling
        if not options.fit_output and not self.limits.auto_truncate:
            raise RequestError(
                f"Requested token count exceeds the model's maximum context length of {limit} tokens: {count} tokens "
                f"of the input and {sampling.max_new_tokens} of the completion (max_new_tokens) are "
                f"{count + sampling.max_new_tokens}. "
                "Shorten the input or ask for fewer tokens.",
                param="max_new_tokens",
            )
        return prompt_ids, msgspec.structs.replace(sampling, max_new_tokens=room)

    def _text_stream(self, prompt_ids: list[int], sampling: SamplingParams) -> TextStream | None:
        if self.tokenizer is None:
            return None
        return TextStream(self._detokenizer(self.tokenizer, prompt_ids, sampling), _stops(sampling))

    def _detokenizer(self, tokenizer: TokenizerLike, prompt_ids: list[int], sampling: SamplingParams) -> Detokenizer:
        skip = sampling.skip_special_tokens
        table = self._byte_tables[skip] if skip or sampling.spaces_between_special_tokens else None
        if table is not None:
            return ByteDetokenizer(table)
        return IncrementalDetokenizer(_decoder(tokenizer, sampling), prompt_ids[-CONTEXT:])


def _stops(sampling: SamplingParams) -> Stops | None:
    """What ends the text. Raises :class:`RequestError` for an expression that cannot be taken."""
    found: list[Stops] = []
    if sampling.stop:
        found.append(StopMatcher(sampling.stop, keep=sampling.no_stop_trim))
    if sampling.stop_regex:
        try:
            patterns = [compile_stop_regex(text) for text in sampling.stop_regex]
        except StopRegexError as error:
            raise RequestError(f"stop_regex {error}", param="stop_regex") from None
        found.append(RegexMatcher(patterns, keep=sampling.no_stop_trim))
    return FirstOf(found) if len(found) > 1 else found[0] if found else None


def _grammar_unless(prompt_ids: list[int], options: RequestOptions) -> int:
    """The token by which an answer shows that it begins with a reasoning; -1 where the prompt began it."""
    start = options.reasoning_start
    return -1 if start is None or start in prompt_ids[-REASONING_TAIL:] else start


def check_sampling(sampling: SamplingParams) -> None:
    """Raise :class:`RequestError` for a parameter out of range."""
    try:
        sampling.validate()
    except SamplingError as error:
        raise RequestError(str(error), param=error.field) from None


def fan_out(option: RequestOptions) -> list[RequestOptions]:
    """``n`` answers are ``n`` requests: of their own id and, where one is given, their own seed."""
    sampling = option.sampling
    if sampling.n <= 1:
        return [option]
    return [
        msgspec.structs.replace(
            option,
            rid=f"{option.rid}_{i}" if option.rid else "",
            sample=i,
            sampling=msgspec.structs.replace(
                sampling, n=1, sampling_seed=None if sampling.sampling_seed is None else sampling.sampling_seed + i
            ),
        )
        for i in range(sampling.n)
    ]


def _byte_table(tokenizer: TokenizerLike | None, *, skip: bool) -> list[bytes] | None:
    return tokenizer.byte_table(skip_special_tokens=skip) if isinstance(tokenizer, Tokenizer) else None


def _decoder(tokenizer: TokenizerLike, sampling: SamplingParams) -> Callable[[list[int]], str]:
    decode = tokenizer.decode
    skip, spaces = sampling.skip_special_tokens, sampling.spaces_between_special_tokens
    return lambda ids: decode(ids, skip_special_tokens=skip, spaces_between_special_tokens=spaces)
