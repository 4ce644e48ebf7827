"""Log probabilities in every route that tells them. In the fake, a token's is a hundredth of its id, below zero."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.backend.api.conftest import MODEL, Backend
from tests.backend.byte_tokenizer import ByteTokenizer

ids = ByteTokenizer().encode
HI = [{"role": "user", "content": "hi"}]
A, B = ids("a")[0], ids("b")[0]


def lp(text: str) -> list[float]:
    return [-token / 100 for token in ids(text)]


async def generate(backend: Backend, **fields: Any) -> dict[str, Any]:
    answer = await backend.http.post("/generate", json={"sampling_params": {"max_new_tokens": 3}, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_generate_tells_the_output_tokens(backend: Backend) -> None:
    meta = (await generate(backend, text="ab", return_logprob=True))["meta_info"]
    assert meta["output_token_logprobs"] == [[-A / 100, A, None], [-B / 100, B, None], [-A / 100, A, None]]
    assert (meta["input_token_logprobs"], meta["output_token_logprobs_length"]) == ([], 3)
    assert "output_top_logprobs" not in meta
    assert "output_token_logprobs" not in (await generate(backend, text="ab"))["meta_info"]


async def test_generate_tells_all_that_is_asked_for(backend: Backend) -> None:
    fields = {"logprob_start_len": 0, "top_logprobs_num": 2, "token_ids_logprob": [50], "return_text_in_logprobs": True}
    meta = (await generate(backend, text="ab", return_logprob=True, **fields))["meta_info"]
    assert meta["input_token_logprobs"] == [[None, A, "a"], [-B / 100, B, "b"]]
    assert meta["input_top_logprobs"] == [None, [[-B / 100, B, "b"], [-99.0, 99, "Y"]]]
    assert meta["output_top_logprobs"][0] == [[-A / 100, A, "a"], [-99.0, 99, "Y"]]
    assert meta["output_token_ids_logprobs"][0] == [[-0.5, 50, "("]]
    assert meta["input_token_ids_logprobs"] == [None, [[-0.5, 50, "("]]]


async def test_each_prompt_of_a_batch_has_its_own_wishes(backend: Backend) -> None:
    fields = {"return_logprob": [True, False], "logprob_start_len": [1, -1], "token_ids_logprob": [[50], None]}
    first, second = await generate(backend, text=["ab", "ab"], **fields)
    assert first["meta_info"]["input_token_logprobs"] == [[-B / 100, B, None]]
    assert "output_token_logprobs" not in second["meta_info"]


async def test_tokens_after_a_stop_string_are_not_told(backend: Backend) -> None:
    params = {"max_new_tokens": 10, "stop": ["b"]}
    answer = await generate(backend, text="ab", return_logprob=True, sampling_params=params)
    assert len(answer["meta_info"]["output_token_logprobs"]) == len(answer["output_ids"])


@pytest.mark.parametrize("stream", [False, True])
async def test_completions(backend: Backend, stream: bool) -> None:
    answer = await backend.sdk.completions.create(
        model=MODEL, prompt="ab", max_tokens=4, logprobs=1, echo=True, stream=stream
    )
    choices = [chunk.choices[0] async for chunk in answer] if stream else [answer.choices[0]]
    told = [choice.logprobs for choice in choices]
    assert [token for each in told for token in each.tokens] == list("ababab")
    assert [value for each in told for value in each.token_logprobs] == [None, *lp("babab")]
    assert [offset for each in told for offset in each.text_offset] == [0, 1, 2, 3, 4, 5]
    tops = [top for each in told for top in each.top_logprobs]
    assert tops[0] is None
    assert tops[1:] == [{letter: value} for letter, value in zip("babab", lp("babab"), strict=True)]


async def test_prompts_as_a_language_model_harness_asks_for_them(backend: Backend) -> None:
    answer = await backend.sdk.completions.create(
        model=MODEL, prompt=[ids("abc"), ids("xy")], max_tokens=1, logprobs=1, echo=True
    )
    assert [choice.text for choice in answer.choices] == ["abca", "xyx"]
    assert [len(choice.logprobs.tokens) for choice in answer.choices] == [4, 3]


@pytest.mark.parametrize("stream", [False, True])
async def test_chat(backend: Backend, stream: bool) -> None:
    answer = await backend.sdk.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=4, logprobs=True, top_logprobs=2, stream=stream
    )
    choices = [chunk.choices[0] async for chunk in answer] if stream else [answer.choices[0]]
    told = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    assert "".join(entry.token for entry in told) == "user"
    assert [entry.logprob for entry in told] == lp("user")
    assert told[0].bytes == list(b"u")
    assert [(top.token, top.logprob) for top in told[0].top_logprobs] == [("u", lp("u")[0]), ("Y", -99.0)]


async def test_a_token_that_is_no_whole_character_is_told_by_its_id(backend: Backend) -> None:
    answer = await backend.sdk.completions.create(model=MODEL, prompt="é", max_tokens=2, logprobs=0)
    assert answer.choices[0].logprobs.tokens == [f"token_id:{token}" for token in ids("é")]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"top_logprobs": 3}, "top_logprobs needs logprobs"),
        ({"logprobs": True, "top_logprobs": 50}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias: 'x'"),
        ({"logit_bias": {"50000": 1}}, "50000"),
    ],
)
async def test_bad_wishes(backend: Backend, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await backend.sdk.chat.completions.create(model=MODEL, messages=HI, **fields)


async def test_logit_bias_reaches_the_scheduler(backend: Backend) -> None:
    await backend.sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=1, logit_bias={"50": -100})
    assert backend.engine.received[-1].sampling.logit_bias == {50: -100.0}
