"""How a model tells whether a document answers a query: by a head with one label, or by saying yes or no.

A chat template that asks for "yes" or "no" (Qwen3-Reranker's) gets query and document as two messages, and what the
client says of the task as ``instruct``. Without such a template a model with a head reads query and document as a pair
of texts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from backend.api.classify import classes_of
from backend.api.context import Serving
from backend.api.pooled import pooled_option, unanswered, vector_of
from backend.api.schema import RequestFields
from backend.frontend.errors import RequestError
from backend.frontend.intake import ChatPrompt, Prompt, RequestOptions, TextPair, TokenizerLike
from backend.frontend.request import RequestState
from backend.loader.classes import Classes
from backend.messages import LogprobSpec
from backend.prompt import ChatTemplate
from backend.sampling_params import SamplingParams

_ASKS = ("answer can only be", '"yes"', '"no"')
ONE_TOKEN = SamplingParams(max_new_tokens=1, temperature=0.0, ignore_eos=True)


class Reranker(ABC):
    """``judges``: the chat template puts query and document into the question that the model was trained on."""

    def __init__(self, judges: bool) -> None:
        self._judges = judges

    def prompt(self, query: str, document: str, instruct: str) -> Prompt:
        if not self._judges:
            return TextPair(query, document)
        messages = [{"role": "user", "content": query}, {"role": "user", "content": document}]
        return ChatPrompt(messages, {"instruct": instruct} if instruct else {})

    @abstractmethod
    def option(self, body: RequestFields, names: dict[str, str]) -> RequestOptions:
        """How each pair is asked about."""

    @abstractmethod
    def score(self, state: RequestState) -> float:
        """Of a finished request; larger is better."""


class _Head(Reranker):
    def __init__(self, classes: Classes, judges: bool) -> None:
        super().__init__(judges)
        self._classes = classes

    def option(self, body: RequestFields, names: dict[str, str]) -> RequestOptions:
        return pooled_option("classify", body, names)

    def score(self, state: RequestState) -> float:
        return float(self._classes.scores(vector_of(state))[0])


class _YesOrNo(Reranker):
    """The share of "yes" in what the next token would be, of "yes" and "no"."""

    def __init__(self, tokenizer: TokenizerLike) -> None:
        super().__init__(judges=True)
        self._ids = [_only_token(tokenizer, word) for word in ("yes", "no")]

    def option(self, body: RequestFields, names: dict[str, str]) -> RequestOptions:
        logprobs = LogprobSpec(ids=self._ids)
        namespace, priority = body.namespace, body.priority
        return RequestOptions(
            sampling=ONE_TOKEN, logprobs=logprobs, namespace=namespace, priority=priority, names=names
        )

    def score(self, state: RequestState) -> float:
        if state.logprobs is None or not state.logprobs.output:
            raise unanswered(state)
        yes, no = state.logprobs.output[0].ids
        return 1 / (1 + math.exp(min(no - yes, 700.0)))  # larger ones overflow


def _only_token(tokenizer: TokenizerLike, word: str) -> int:
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        raise RequestError(f"The model cannot judge with yes or no: {word!r} is {len(ids)} tokens of its vocabulary.")
    return ids[0]


def reranker_of(serving: Serving) -> Reranker:
    """How the served model reranks. Raises :class:`RequestError` when it does not."""
    intake = serving.frontend.intake
    judges = isinstance(intake.template, ChatTemplate) and _asks(intake.template.text)
    if serving.model.classes is None and judges and intake.tokenizer is not None:
        return _YesOrNo(intake.tokenizer)
    if serving.model.classes is None:
        raise RequestError(
            f"The model {serving.model.name!r} is no reranker: it has no classification head, and its chat template "
            'does not ask for "yes" or "no" (for Qwen3-Reranker: --chat-template configs/qwen3_reranker.jinja).'
        )
    classes = classes_of(serving)
    if len(classes.labels) != 1:
        message = f"The model has {len(classes.labels)} labels, a reranker has one: ask /v1/classify."
        raise RequestError(message)
    return _Head(classes, judges)


def _asks(template: str) -> bool:
    text = template.lower().replace('\\"', '"')
    return all(words in text for words in _ASKS)
