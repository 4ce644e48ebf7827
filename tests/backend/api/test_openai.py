"""The OpenAI routes, by the openai SDK."""

from __future__ import annotations

import json

import openai
import pytest

from backend.api.best_of import best
from backend.frontend.logprobs import Logprobs
from backend.frontend.request import RequestState
from backend.messages import LogprobSpec, TokenLogprobs
from backend.sampling_params import SamplingParams
from tests.backend.api.conftest import MODEL, Backend
from tests.backend.byte_tokenizer import ByteTokenizer

ids = ByteTokenizer().encode
HI = [{"role": "user", "content": "hi"}]
PROMPT = "user: hi\nassistant: "


async def test_chat(backend: Backend) -> None:
    answer = await backend.sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=8)
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    choice = answer.choices[0]
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "user: hi")
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (20, 8, 28)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_chat_tells_cached_tokens(backend: Backend) -> None:
    await backend.sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=1)
    raw = await backend.sdk.chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=1)
    usage = raw.parse().usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 19
    assert raw.headers["x-warmlane-cached-tokens"] == "19"


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_to_a_prompt_tell_its_cached_tokens_once(backend: Backend, stream: bool) -> None:
    body = {"model": MODEL, "prompt": ["hello", "world"], "max_tokens": 2, "n": 3, "stream": stream}
    body["stream_options"] = {"include_usage": True}
    for cached in (0, 8):
        response = await backend.http.post("/v1/completions", json=body)
        events = response.text.split("\n\n")  # the last ones: usage, [DONE], nothing
        whole = json.loads(events[-3].removeprefix("data: ")) if stream else response.json()
        assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == cached
        assert response.headers["x-warmlane-cached-tokens"] == str(cached)


async def test_chat_stream(backend: Backend) -> None:
    stream = await backend.sdk.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "user: hi"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "length"
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-2])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 28
    assert len({chunk.id for chunk in chunks}) == 1


async def test_continuous_usage(backend: Backend) -> None:
    stream = await backend.sdk.chat.completions.create(
        model=MODEL,
        messages=HI,
        max_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"stream_options": {"continuous_usage_stats": True}},
    )
    usages = [chunk.usage async for chunk in stream]
    assert all(usage is not None and usage.prompt_tokens == 20 for usage in usages)


async def test_a_stream_without_usage_has_none(backend: Backend) -> None:
    stream = await backend.sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=3, stream=True)
    assert all([chunk.usage is None and chunk.choices async for chunk in stream])


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_n(backend: Backend, stream: bool) -> None:
    answer = await backend.sdk.chat.completions.create(
        model=MODEL,
        messages=HI,
        max_tokens=4,
        n=3,
        stream=stream,
        stream_options={"include_usage": True} if stream else None,
    )
    texts = {0: "", 1: "", 2: ""}
    if stream:
        async for chunk in answer:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
            usage = chunk.usage
    else:
        texts = {choice.index: choice.message.content for choice in answer.choices}
        usage = answer.usage
    assert texts == {0: "user", 1: "user", 2: "user"}
    assert (usage.prompt_tokens, usage.completion_tokens) == (20, 12)


async def test_without_a_limit_a_chat_goes_on_to_the_end_of_the_context(backend: Backend) -> None:
    answer = await backend.sdk.chat.completions.create(model=MODEL, messages=HI)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 512


async def test_max_completion_tokens_wins(backend: Backend) -> None:
    answer = await backend.sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=8, max_completion_tokens=2)
    assert answer.choices[0].message.content == "us"


async def test_continue_final_message(backend: Backend) -> None:
    messages = [*HI, {"role": "assistant", "content": "Paris is"}]
    await backend.sdk.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=1, extra_body={"continue_final_message": True}
    )
    assert backend.engine.seen[-1] == ids("user: hi\nassistant: Paris is")


async def test_text_parts_and_fields_that_nobody_knows(backend: Backend) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]
    await backend.sdk.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=1, user="me", extra_body={"no_such_field": {"a": 1}}
    )
    assert backend.engine.seen[-1] == ids(PROMPT)


async def test_sampling_defaults_are_openais(backend: Backend) -> None:
    await backend.sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=1, seed=5, stop="x")
    sampling = backend.engine.received[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.sampling_seed, sampling.stop) == (1.0, 1.0, 5, ["x"])


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("abc", ["abcab"]),
        (["abc", "xy"], ["abcab", "xyxyx"]),
        (ids("abc"), ["abcab"]),
        ([ids("abc"), ids("xy")], ["abcab", "xyxyx"]),
    ],
)
async def test_completion_prompts(backend: Backend, prompt: object, texts: list[str]) -> None:
    answer = await backend.sdk.completions.create(model=MODEL, prompt=prompt, max_tokens=5)
    assert answer.object == "text_completion"
    assert [choice.text for choice in answer.choices] == texts
    assert [choice.index for choice in answer.choices] == list(range(len(texts)))


async def test_a_completion_has_16_tokens_unless_told(backend: Backend) -> None:
    answer = await backend.sdk.completions.create(model=MODEL, prompt="a")
    assert answer.choices[0].text == "a" * 16


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_begins_with_the_prompt(backend: Backend, stream: bool) -> None:
    answer = await backend.sdk.completions.create(
        model=MODEL, prompt=[ids("ab"), ids("xyz")], max_tokens=2, n=2, echo=True, stream=stream
    )
    texts = ["", "", "", ""]
    if stream:
        async for chunk in answer:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    else:
        texts = [choice.text for choice in answer.choices]
    assert texts == ["abab", "abab", "xyzxy", "xyzxy"]


async def test_best_of_more_than_n_tells_the_best_and_counts_all(backend: Backend) -> None:
    answer = await backend.sdk.completions.create(model=MODEL, prompt=["ab", "c"], max_tokens=2, n=1, best_of=3)
    assert [(choice.index, choice.text, choice.logprobs) for choice in answer.choices] == [
        (0, "ab", None),
        (1, "cc", None),
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 12)
    echoed = await backend.sdk.completions.create(
        model=MODEL, prompt=["ab", "c"], max_tokens=1, n=2, best_of=3, echo=True, logprobs=0
    )
    assert [choice.text for choice in echoed.choices] == ["aba", "aba", "cc", "cc"]
    assert [len(choice.logprobs.tokens) for choice in echoed.choices if choice.logprobs] == [3, 3, 2, 2]


async def test_the_best_answer_is_the_likeliest_by_token() -> None:
    def answer(uid: int, *logprobs: float) -> RequestState:
        state = RequestState(uid=uid, rid="", index=uid, prompt_ids=[1], sampling=SamplingParams(), created=0.0)
        state.output_ids = [5] * len(logprobs)
        state.logprobs = Logprobs(LogprobSpec(), output=[TokenLogprobs(uid, 5, each) for each in (*logprobs, -99.0)])
        return state

    states = [
        answer(0, -3.0),
        answer(1, -1.0, -2.0, -1.0),
        answer(2),
        answer(3, -9.0),
        answer(4, -7.0),
        answer(5, -8.0),
    ]
    assert [state.uid for state in best(states, 3, 2)] == [1, 0, 4, 5]


async def test_best_of_is_not_streamed(backend: Backend) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
        await backend.sdk.completions.create(model=MODEL, prompt="a", n=1, best_of=2, stream=True)


async def test_best_of_as_many_as_n(backend: Backend) -> None:
    answer = await backend.sdk.completions.create(model=MODEL, prompt="a", max_tokens=1, n=2, best_of=2)
    assert len(answer.choices) == 2
    with pytest.raises(openai.BadRequestError, match="best_of must be at least n"):
        await backend.sdk.completions.create(model=MODEL, prompt="a", max_tokens=1, n=3, best_of=2)


async def test_a_rendered_conversation_as_token_ids(backend: Backend) -> None:
    await backend.sdk.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=1, extra_body={"input_ids": ids("abc")}
    )
    assert backend.engine.seen[-1] == ids("abc")


async def test_completion_stream(backend: Backend) -> None:
    stream = await backend.sdk.completions.create(
        model=MODEL, prompt=["é😀", "b"], max_tokens=6, stream=True, stream_options={"include_usage": True}
    )
    texts, usage = {0: "", 1: ""}, None
    async for chunk in stream:
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {0: "é😀", 1: "bbbbbb"}
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 12)


async def test_stop_reasons_name_what_matched(backend: Backend) -> None:
    answer = await backend.sdk.completions.create(model=MODEL, prompt="one STOP", stop=["STOP", "never"])
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("one ", "stop")
    assert choice.model_extra is not None
    assert choice.model_extra["matched_stop"] == "STOP"


async def test_models(backend: Backend) -> None:
    models = await backend.sdk.models.list()
    assert [model.id for model in models.data] == [MODEL]
    model = await backend.sdk.models.retrieve(MODEL)
    assert model.model_extra is not None
    assert model.model_extra["max_model_len"] == 512


async def test_an_unknown_model_is_not_found(backend: Backend) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        await backend.sdk.models.retrieve("nope")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError, match="'nope' does not exist"):
        await backend.sdk.chat.completions.create(model="nope", messages=HI)


async def test_the_sdk_reads_the_flat_error_body(backend: Backend) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await backend.sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=-5)
    assert "max_tokens" in error.value.message
    assert "-5" in error.value.message
    assert (error.value.code, error.value.param, error.value.type) == ("400", "max_tokens", "Bad Request")


async def test_each_event_is_one_line_of_json(backend: Backend) -> None:
    body = {"model": MODEL, "prompt": "a\n\nb", "max_tokens": 4, "stream": True}
    text = (await backend.http.post("/v1/completions", json=body)).text
    lines = [line for line in text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "text_completion" for line in lines[:-1])


@pytest.mark.parametrize("wrong", [-1, 2**40, 2**70])
async def test_what_is_echoed_must_be_tokens(backend: Backend, wrong: int) -> None:
    response = await backend.http.post("/v1/completions", json={"prompt": [5, wrong], "echo": True, "max_tokens": 1})
    assert (response.status_code, response.json()["param"]) == (400, "prompt")
