"""The output side: tokens, stops and ends of the requests that a message names."""

from __future__ import annotations

import pytest

from backend.frontend import Intake, Limits, OutputProcessor, RequestOptions, RequestState, generate_result
from backend.messages import Finish, FromScheduler
from backend.sampling_params import SamplingParams
from tests.backend.byte_tokenizer import EOS, OFFSET, ByteTokenizer

TOKENIZER = ByteTokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def start(
    outputs: OutputProcessor, *, streaming: bool = True, tokenizer: bool = True, **sampling: object
) -> RequestState:
    intake = Intake(TOKENIZER if tokenizer else None, None, Limits(1000, 1000))
    options = RequestOptions(sampling=SamplingParams(**sampling), streaming=streaming, rid="r")
    state, _ = intake.accept(ids("prompt"), options, 0, now=10.0)
    outputs.add(state)
    return state


def message(
    state: RequestState, text: str = "", tokens: list[int] | None = None, finish: Finish | None = None
) -> FromScheduler:
    tokens = ids(text) + (tokens or [])
    return FromScheduler(uids=[state.uid] * len(tokens), tokens=tokens, finished=[finish] if finish else [])


def test_text_and_times_grow_step_by_step() -> None:
    outputs = OutputProcessor()
    state = start(outputs)
    first = outputs.process(message(state, "he"), 10.5).updates[0]
    second = outputs.process(message(state, "y"), 10.75).updates[0]
    assert (first.tokens, first.first, first.gap) == (2, True, 0.5)
    assert (second.tokens, second.first, second.gap) == (1, False, 0.25)
    assert state.text == "hey"
    assert state.finish is None


def test_cached_tokens_come_with_the_start() -> None:
    outputs = OutputProcessor()
    state = start(outputs)
    outputs.process(FromScheduler(started=[(state.uid, 4), (999, 1)]), 11.0)
    assert state.cached_tokens == 4


@pytest.mark.parametrize("streaming", [True, False])
def test_the_stop_token_counts_and_is_not_shown(streaming: bool) -> None:
    outputs = OutputProcessor()
    state = start(outputs, streaming=streaming)
    stop = ids("!")[0]
    outputs.process(message(state, "hi"), 11.0)
    outputs.process(message(state, "!", finish=Finish(state.uid, "stop", matched=stop)), 12.0)
    result = generate_result(state)
    assert result["text"] == "hi"
    assert result["output_ids"] == ids("hi!")
    assert result["meta_info"]["finish_reason"] == {"type": "stop", "matched": stop}
    assert result["meta_info"]["completion_tokens"] == 3
    assert result["meta_info"]["e2e_latency"] == 2.0
    assert len(outputs) == 0


@pytest.mark.parametrize("streaming", [True, False])
def test_no_stop_trim_shows_the_stop_token(streaming: bool) -> None:
    outputs = OutputProcessor()
    state = start(outputs, streaming=streaming, no_stop_trim=True, skip_special_tokens=False)
    outputs.process(message(state, "hi", [EOS], Finish(state.uid, "stop", matched=EOS)), 11.0)
    assert state.text == f"hi<{EOS}>"


@pytest.mark.parametrize("streaming", [True, False])
def test_a_stop_string_ends_the_request_and_later_tokens_are_dropped(streaming: bool) -> None:
    outputs = OutputProcessor()
    state = start(outputs, streaming=streaming, stop=["END"])
    assert outputs.process(message(state, "one E"), 11.0).abort == []
    result = outputs.process(message(state, "ND two"), 12.0)
    assert result.abort == [state.uid]
    assert state.text == "one "
    assert state.output_ids == ids("one END")
    assert generate_result(state)["meta_info"]["finish_reason"] == {"type": "stop", "matched": "END"}
    late = outputs.process(message(state, "late", finish=Finish(state.uid, "length")), 13.0)
    assert late.updates == []


@pytest.mark.parametrize(("keep", "text"), [(False, "ab"), (True, "ab12.")])
@pytest.mark.parametrize("streaming", [True, False])
def test_a_stop_expression_ends_the_request(streaming: bool, keep: bool, text: str) -> None:
    outputs = OutputProcessor()
    state = start(outputs, streaming=streaming, stop=["?"], stop_regex=[r"\d+\."], no_stop_trim=keep)
    outputs.process(message(state, "ab1"), 11.0)
    assert state.text == "ab"
    assert outputs.process(message(state, "2.c"), 12.0).abort == [state.uid]
    assert (state.text, state.finish.matched, state.completion_tokens) == (text, r"\d+\.", 5)


def test_a_stop_expression_that_takes_too_long_ends_its_request_in_error() -> None:
    outputs = OutputProcessor()
    state = start(outputs, stop_regex=["(a|aa)+c"])
    result = outputs.process(message(state, "a" * 200), 11.0)
    assert result.abort == [state.uid]
    assert (state.finish.kind, state.finish.status_code) == ("abort", 400)
    assert "stop_regex takes too long" in state.finish.message


def test_a_stop_string_on_the_last_token_wins_over_the_length() -> None:
    outputs = OutputProcessor()
    state = start(outputs, stop=["END"], max_new_tokens=3)
    result = outputs.process(message(state, "END", finish=Finish(state.uid, "length")), 11.0)
    assert result.abort == []  # the scheduler is done with it already
    assert state.finish is not None
    assert state.finish.matched == "END"


def test_a_held_back_false_start_comes_out_at_the_end() -> None:
    outputs = OutputProcessor()
    state = start(outputs, stop=["END"], max_new_tokens=4)
    outputs.process(message(state, "a E"), 11.0)
    assert state.text == "a "
    outputs.process(message(state, "N", finish=Finish(state.uid, "length")), 12.0)
    assert state.text == "a EN"
    assert generate_result(state)["meta_info"]["finish_reason"] == {"type": "length", "length": 4}


def test_an_abort_by_the_scheduler_keeps_its_reason() -> None:
    outputs = OutputProcessor()
    state = start(outputs)
    outputs.process(message(state, finish=Finish(state.uid, "abort", message="no room", status_code=503)), 11.0)
    assert generate_result(state)["meta_info"]["finish_reason"] == {
        "type": "abort",
        "message": "no room",
        "status_code": 503,
        "err_type": None,
    }


@pytest.mark.parametrize("streaming", [True, False])
def test_an_abort_by_a_client_keeps_what_there_is(streaming: bool) -> None:
    outputs = OutputProcessor()
    state = start(outputs, streaming=streaming)
    outputs.process(message(state, "so far"), 11.0)
    assert outputs.abort(state.uid, "asked for", 12.0) is state
    assert outputs.abort(state.uid, "asked for", 12.0) is None
    assert state.text == "so far"
    assert len(outputs) == 0


def test_without_a_tokenizer_there_are_only_ids() -> None:
    outputs = OutputProcessor()
    state = start(outputs, tokenizer=False)
    outputs.process(message(state, "x", finish=Finish(state.uid, "length")), 11.0)
    result = generate_result(state)
    assert "text" not in result
    assert result["output_ids"] == [ord("x") + OFFSET]


def test_an_answer_whose_grammar_is_complete_names_its_last_token() -> None:
    outputs = OutputProcessor()
    state = start(outputs)
    outputs.process(message(state, "yes", finish=Finish(state.uid, "stop")), 11.0)
    assert state.finish is not None
    assert state.finish.as_dict() == {"type": "stop", "matched": ids("s")[0]}
    assert state.text == "yes"
