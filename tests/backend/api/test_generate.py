"""``/generate``: shapes of requests and answers."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.backend.api.conftest import Backend
from tests.backend.byte_tokenizer import ByteTokenizer
from tests.backend.fake_scheduler import STUCK_TOKEN

ids = ByteTokenizer().encode


def events(text: str) -> list[dict]:
    """The events of a stream; it must end in ``[DONE]``."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_one_prompt_gives_one_dictionary(backend: Backend, method: str) -> None:
    body = {"text": "hello", "sampling_params": {"max_new_tokens": 7}, "rid": "mine"}
    response = await backend.http.request(method, "/generate", json=body)
    assert response.status_code == 200
    assert response.headers["x-warmlane-cached-tokens"] == "0"
    answer = response.json()
    assert answer["meta_info"].pop("e2e_latency") > 0
    assert answer == {
        "text": "hellohe",
        "output_ids": ids("hellohe"),
        "meta_info": {
            "id": "mine",
            "finish_reason": {"type": "length", "length": 7},
            "prompt_tokens": 5,
            "completion_tokens": 7,
            "cached_tokens": 0,
            "weight_version": "default",
        },
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompts_token_ids_are_told_on_demand(backend: Backend, stream: bool) -> None:
    body = {"text": "hi", "return_prompt_token_ids": True, "sampling_params": {"max_new_tokens": 2}, "stream": stream}
    response = await backend.http.post("/generate", json=body)
    for answer in events(response.text) if stream else [response.json()]:
        assert answer["prompt_token_ids"] == ids("hi")
    body["return_prompt_token_ids"] = False
    assert "prompt_token_ids" not in (await backend.http.post("/generate", json=body)).text


WITHOUT_EFFECT = {
    "no_logs": True,
    "custom_labels": {"team": "a"},
    "modalities": ["text"],
    "routed_dp_rank": 0,
    "data_parallel_rank": 0,
    "routing_key": "k",
    "background": False,
    "priority": 3,
    "return_hidden_states": False,
    "session_params": None,
}


@pytest.mark.parametrize("field", WITHOUT_EFFECT)
async def test_fields_that_change_nothing_in_the_answer_are_taken(backend: Backend, field: str) -> None:
    plain = {"text": "hello", "rid": "r", "sampling_params": {"max_new_tokens": 3}}
    answers = [
        (await backend.http.post("/generate", json={**plain, **more})).json()
        for more in ({}, {field: WITHOUT_EFFECT[field]})
    ]
    assert answers[0]["output_ids"] == answers[1]["output_ids"]


@pytest.mark.parametrize("stream", [False, True])
async def test_cached_tokens_are_told_in_head_and_body(backend: Backend, stream: bool) -> None:
    body = {"text": "hello world", "sampling_params": {"max_new_tokens": 2}, "stream": stream}
    await backend.http.post("/generate", json=body)
    response = await backend.http.post("/generate", json=body)
    assert response.headers["x-warmlane-cached-tokens"] == "10"
    answer = events(response.text)[-1] if stream else response.json()
    assert answer["meta_info"]["cached_tokens"] == 10


async def test_the_head_of_a_batch_waits_for_the_last_prompt(backend: Backend) -> None:
    backend.engine.slots = 1
    body = {"text": ["abc", "abcd"], "sampling_params": [{"max_new_tokens": 3, "n": 2}, {"max_new_tokens": 2}]}
    response = await backend.http.post("/generate", json=body)
    told = [answer["meta_info"]["cached_tokens"] for answer in response.json()]
    assert told == [0, 2, 3]
    assert response.headers["x-warmlane-cached-tokens"] == "3"  # of two prompts, the first one counted once


async def test_a_streamed_batch_does_not_wait_to_tell_cached_tokens(backend: Backend) -> None:
    backend.engine.slots = 1
    body = {"input_ids": [[*ids("abc"), STUCK_TOKEN], ids("abc")], "stream": True}
    async with backend.http.stream("POST", "/generate", json=body) as response:  # its second prompt never begins
        assert "x-warmlane-cached-tokens" not in response.headers


async def test_a_batch_gives_a_list_in_order(backend: Backend) -> None:
    body = {
        "input_ids": [ids("ab"), ids("xyz")],
        "sampling_params": [{"max_new_tokens": 4}, {"max_new_tokens": 2}],
        "rid": ["first", "second"],
    }
    answers = (await backend.http.post("/generate", json=body)).json()
    assert [(each["text"], each["meta_info"]["id"]) for each in answers] == [("abab", "first"), ("xy", "second")]


async def test_a_batch_of_one_is_still_a_list(backend: Backend) -> None:
    answers = (await backend.http.post("/generate", json={"text": ["ab"], "sampling_params": {"n": 1}})).json()
    assert isinstance(answers, list)


async def test_n_answers_to_one_prompt(backend: Backend) -> None:
    body = {"text": "ab", "sampling_params": {"max_new_tokens": 1, "n": 3}, "rid": "r"}
    answers = (await backend.http.post("/generate", json=body)).json()
    assert [each["meta_info"]["id"] for each in answers] == ["r_0", "r_1", "r_2"]


async def test_a_stream_is_cumulative(backend: Backend) -> None:
    body = {"text": "hé😀", "sampling_params": {"max_new_tokens": 7}, "stream": True}
    response = await backend.http.post("/generate", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    seen = events(response.text)
    texts = [event["text"] for event in seen]
    assert texts[-1] == "hé😀"
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert all(event["meta_info"]["finish_reason"] is None for event in seen[:-1])
    assert seen[-1]["output_ids"] == ids("hé😀")


async def test_a_streamed_batch_numbers_its_items(backend: Backend) -> None:
    body = {"text": ["ab", "cd"], "sampling_params": {"max_new_tokens": 3}, "stream": True}
    last = {event["index"]: event["text"] for event in events((await backend.http.post("/generate", json=body)).text)}
    assert last == {0: "aba", 1: "cdc"}


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_string(backend: Backend, stream: bool) -> None:
    body = {"text": "one STOP two", "sampling_params": {"max_new_tokens": 12, "stop": "STOP"}, "stream": stream}
    response = await backend.http.post("/generate", json=body)
    seen = events(response.text) if stream else [response.json()]
    assert seen[-1]["text"] == "one "
    assert seen[-1]["meta_info"]["finish_reason"] == {"type": "stop", "matched": "STOP"}
    assert not any("S" in event["text"] for event in seen)


async def test_a_stop_string_ends_the_work_too(backend: Backend) -> None:
    body = {"text": "x", "sampling_params": {"max_new_tokens": 500, "stop": ["xxx"]}}
    assert (await backend.http.post("/generate", json=body)).json()["meta_info"]["completion_tokens"] == 3
    await backend.nothing_runs()
    assert len(backend.engine.aborted) == 1


async def test_stop_token_ids(backend: Backend) -> None:
    stop = ids("l")[0]
    body = {"text": "hello", "sampling_params": {"max_new_tokens": 12, "stop_token_ids": [stop]}}
    answer = (await backend.http.post("/generate", json=body)).json()
    assert (answer["text"], answer["output_ids"]) == ("he", ids("hel"))


async def test_the_output_limit_fits_the_context_when_not_given(backend: Backend) -> None:
    answer = (await backend.http.post("/generate", json={"input_ids": [50] * 500})).json()
    assert answer["meta_info"]["completion_tokens"] == 12


async def test_no_tokens_asked_for(backend: Backend) -> None:
    answer = (
        await backend.http.post("/generate", json={"text": "ab", "sampling_params": {"max_new_tokens": 0}})
    ).json()
    assert (answer["text"], answer["meta_info"]["finish_reason"]) == ("", {"type": "length", "length": 0})


async def test_sampling_params_reach_the_scheduler(backend: Backend) -> None:
    sampling = {"temperature": 0.5, "top_k": 3, "min_p": 0.1, "sampling_seed": 4, "max_new_tokens": 1, "stop": None}
    body = {"text": "ab", "sampling_params": sampling, "priority": 3, "extra_key": "k", "cache_salt": "s"}
    await backend.http.post("/generate", json=body)
    request = backend.engine.received[-1]
    params = request.sampling
    assert (params.temperature, params.top_k, params.min_p, params.sampling_seed) == (0.5, 3, 0.1, 4)
    assert request.priority == 3
    assert request.namespace != ""


async def test_salt_and_extra_key_do_not_run_into_each_other(backend: Backend) -> None:
    for salt, key in (("ab", "c"), ("a", "bc")):
        body = {"text": "x", "sampling_params": {"max_new_tokens": 1}, "cache_salt": salt, "extra_key": key}
        await backend.http.post("/generate", json=body)
    first, second = backend.engine.received[-2:]
    assert first.namespace != second.namespace


async def test_abort_by_prefix_ends_the_answer_with_what_there_is(backend: Backend) -> None:
    body = {"input_ids": [*ids("a"), STUCK_TOKEN], "rid": "job-1", "stream": True}
    async with backend.http.stream("POST", "/generate", json=body) as response:
        lines = response.aiter_lines()
        assert json.loads((await anext(lines)).removeprefix("data: "))["text"] == "a"
        other = await backend.http.post("/abort_request", json={"rid": "other"})
        assert (other.status_code, other.content) == (200, b"")
        assert backend.frontend.unfinished == 1
        await backend.http.post("/abort_request", json={"rid": "job"})
        rest = [json.loads(line.removeprefix("data: ")) async for line in lines if line.startswith("data: {")]
    assert rest[-1]["text"] == "a"
    assert rest[-1]["meta_info"]["finish_reason"]["type"] == "abort"


async def test_an_empty_rid_aborts_nothing_and_abort_all_everything(backend: Backend) -> None:
    body = {"input_ids": [*ids("a"), STUCK_TOKEN], "stream": True}
    async with backend.http.stream("POST", "/generate", json=body) as response:
        lines = response.aiter_lines()
        await anext(lines)
        await backend.http.post("/abort_request", json={"rid": ""})
        assert backend.frontend.unfinished == 1
        await backend.http.post("/abort_request", json={"abort_all": True})
        assert backend.frontend.unfinished == 0
        assert "data: [DONE]" in [line async for line in lines]
