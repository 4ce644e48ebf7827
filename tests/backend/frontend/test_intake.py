"""The input side: limits are kept before the scheduler hears of a request."""

from __future__ import annotations

import re

import numpy as np
import pytest
from msgspec import structs

from backend.frontend import ChatPrompt, Intake, Limits, RequestError, RequestOptions
from backend.frontend.intake import fan_out
from backend.grammar import GrammarSpec
from backend.prompt.errors import TemplateError
from backend.sampling_params import SamplingParams
from tests.backend.byte_tokenizer import EOS, ByteTokenizer, PlainTemplate

LIMITS = Limits(context_length=20, vocab_size=300)


def make(limits: Limits = LIMITS) -> Intake:
    return Intake(ByteTokenizer(), PlainTemplate(), limits)


def options(max_new_tokens: int = 4, fit: bool = False, **sampling: object) -> RequestOptions:
    return RequestOptions(sampling=SamplingParams(max_new_tokens=max_new_tokens, **sampling), fit_output=fit)


def test_a_request_becomes_ids_and_stop_ids() -> None:
    intake = make()
    state, message = intake.accept(intake.tokenize("abc"), options(stop_token_ids=[5]), 3, now=1.0)
    assert np.frombuffer(message.input_ids, dtype="<i4").tolist() == state.prompt_ids == [107, 108, 109]
    assert message.stop_token_ids == [5, EOS]
    assert (message.uid, state.index, state.created) == (state.uid, 3, 1.0)


def test_stop_ids_that_can_never_be_sampled_are_dropped() -> None:
    _, message = make().accept([50], options(stop_token_ids=[5, 300, 5, 2**31 - 1]), 0, now=0.0)
    assert message.stop_token_ids == [5, EOS]


def test_ignore_eos_leaves_the_requests_own_stop_ids() -> None:
    _, message = make().accept([50], options(stop_token_ids=[5], ignore_eos=True), 0, now=0.0)
    assert message.stop_token_ids == [5]


def test_every_request_has_its_own_number_and_name() -> None:
    intake = make()
    first, _ = intake.accept([50], options(), 0, now=0.0)
    second, _ = intake.accept([50], options(), 0, now=0.0)
    assert first.uid != second.uid
    assert first.rid != second.rid


def test_a_conversation_is_rendered() -> None:
    ids = make().tokenize(ChatPrompt([{"role": "user", "content": "hi"}]))
    assert ByteTokenizer().decode(ids) == "user: hi\nassistant: "


@pytest.mark.parametrize(
    ("ids", "option", "told"),
    [
        (
            list(range(20, 40)),
            options(),
            "The input (20 tokens) is longer than the model's context length (20 tokens).",
        ),
        (list(range(20, 30)), options(11), "maximum context length of 20 tokens: 10 tokens of the input and 11"),
        ([50, 300], options(), "token id 300 is not in the model's vocabulary of 300 ids"),
        ([50, -1], options(), "token id -1"),
        ([50], options(temperature=-0.5), "temperature must be between 0 and 1e+30, got -0.5"),
        ([50], options(-1), "max_new_tokens must be at least 0, got -1"),
        ([50], options(stop=[""]), "stop must be"),
        ([50], options(logit_bias={300: 1.0}), "token id 300 is not in the model's vocabulary"),
        ([50], options(logit_bias={-1: 1.0}), "token id -1"),
        ([50], options(logit_bias={5: 1e300}), "logit_bias must be between -1000 and 1000, got 1e+300 for token 5"),
        ([50], options(2, min_new_tokens=1, stop_token_ids=list(range(300))), "min_new_tokens=1 allows none"),
        (
            [50],
            RequestOptions(sampling=SamplingParams(max_new_tokens=1), priority=2**63),
            f"priority must be an integer of 64 bits, got {2**63}",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(ids: list[int], option: RequestOptions, told: str) -> None:
    with pytest.raises(RequestError, match=re.escape(told)) as error:
        make().accept(ids, option, 0, now=0.0)
    assert error.value.status == 400


@pytest.mark.parametrize("prompt", ["", []])
def test_an_empty_prompt_is_refused(prompt: str | list[int]) -> None:
    with pytest.raises(RequestError, match="empty"):
        make().tokenize(prompt)


def test_a_template_that_refuses_is_the_clients_error() -> None:
    with pytest.raises(RequestError, match="refuses everything"):
        make().tokenize(ChatPrompt([{"role": "user", "content": "hi"}], {"refuse": True}))


def test_an_output_limit_that_nobody_asked_for_is_made_to_fit() -> None:
    state, message = make().accept(list(range(20, 30)), options(128, fit=True), 0, now=0.0)
    assert state.sampling.max_new_tokens == message.sampling.max_new_tokens == 10


def test_auto_truncate_cuts_input_and_output() -> None:
    intake = make(Limits(20, 300, auto_truncate=True))
    state, _ = intake.accept(list(range(20, 60)), options(128), 0, now=0.0)
    assert state.prompt_ids == list(range(20, 39))
    assert state.sampling.max_new_tokens == 1


def test_n_answers_are_n_requests() -> None:
    option = RequestOptions(sampling=SamplingParams(n=3, sampling_seed=7), rid="r")
    fanned = fan_out(option)
    assert [each.rid for each in fanned] == ["r_0", "r_1", "r_2"]
    assert [(each.sampling.n, each.sampling.sampling_seed) for each in fanned] == [(1, 7), (1, 8), (1, 9)]


def test_without_a_tokenizer_text_is_refused() -> None:
    intake = Intake(None, None, LIMITS)
    assert intake.tokenize([5, 6]) == [5, 6]
    with pytest.raises(RequestError, match="skip-tokenizer-init"):
        intake.tokenize("text")


def test_what_a_template_refuses_is_said_once() -> None:
    class Refusing:
        def render(self, messages: object, **options: object) -> str:
            raise TemplateError("the chat template refuses this conversation: roles must alternate")

    intake = Intake(ByteTokenizer(), Refusing(), LIMITS)
    with pytest.raises(RequestError, match=r"^The chat template refuses this conversation: roles must alternate$"):
        intake.tokenize(ChatPrompt([{"role": "user", "content": "hi"}]))


@pytest.mark.parametrize(
    ("prompt", "after", "unless"),
    [([50], 8, 7), ([50, 7], 8, -1), ([50, 7, 8], -1, -1), ([7, *[50] * 16], 8, 7)],
    ids=["the model decides", "the prompt opened it", "the prompt closed it", "of an earlier turn"],
)
def test_a_grammar_begins_behind_the_reasoning(prompt: list[int], after: int, unless: int) -> None:
    """Token 7 begins a reasoning, 8 ends it."""
    option = structs.replace(options(1), grammar=GrammarSpec("regex", "a"), reasoning_start=7, reasoning_end=8)
    _, message = make().accept(prompt, option, 0, now=0.0)
    assert (message.grammar_after, message.grammar_unless) == (after, unless)
