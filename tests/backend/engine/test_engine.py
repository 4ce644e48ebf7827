"""The offline Engine on the default model: real text, the dictionaries of /generate, and errors that say what is
wrong.
"""

import asyncio
import itertools
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend import Engine, SamplingParams
from backend.prompt import load_tokenizer
from backend.scheduler.loop import Scheduler
from backend.scheduler.running import Running
from tests.backend.prompt.tiny import write_folder

GREEDY = {"temperature": 0, "max_new_tokens": 12}
CHAT = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def engine():
    with Engine(max_total_tokens=8192, cpu_threads=1, check_invariants=True) as engine:
        yield engine


def test_it_knows_the_capital_of_france(engine):
    result = engine.generate(CHAT.format("You are a helpful assistant.", "What is the capital of France?"), GREEDY)
    assert "Paris" in result["text"]
    meta = result["meta_info"]
    assert meta["finish_reason"] == {"type": "stop", "matched": 2}
    assert meta["completion_tokens"] == len(result["output_ids"])
    assert meta["prompt_tokens"] > 20


def test_an_answer_may_have_to_follow_a_grammar(engine):
    result = engine.generate("My phone number is ", {**GREEDY, "regex": "[0-9]{3}-[0-9]{2}"})
    assert re.fullmatch("[0-9]{3}-[0-9]{2}", result["text"])
    with pytest.raises(ValueError, match="regex cannot be compiled"):
        engine.generate("x", {**GREEDY, "regex": "("})


def test_a_shared_head_is_read_from_the_cache(engine):
    system = "You are a very patient teacher of geography. " * 12
    engine.flush_cache()
    first = engine.generate(CHAT.format(system, "Name a river."), GREEDY)
    second = engine.generate(CHAT.format(system, "Name a mountain."), GREEDY)
    assert first["meta_info"]["cached_tokens"] == 0
    assert second["meta_info"]["cached_tokens"] > 80


def test_a_batch_keeps_its_order_and_each_prompt_its_parameters(engine):
    prompts = ["One, two, three,", "The sky is", "Once upon a time"]
    params = [GREEDY | {"max_new_tokens": count} for count in (1, 5, 3)]
    results = engine.generate(prompts, params)
    assert [len(result["output_ids"]) for result in results] == [1, 5, 3]
    assert results[0]["text"].strip() == "four"
    assert [result["meta_info"]["finish_reason"]["length"] for result in results] == [1, 5, 3]


def test_n_gives_a_list_of_different_answers(engine):
    results = engine.generate(
        "Once upon a time", {"n": 3, "temperature": 1.5, "max_new_tokens": 12, "sampling_seed": 7}
    )
    assert len({result["text"] for result in results}) == 3
    again = engine.generate("Once upon a time", {"n": 3, "temperature": 1.5, "max_new_tokens": 12, "sampling_seed": 7})
    assert [result["output_ids"] for result in again] == [result["output_ids"] for result in results]


def test_a_stop_string_ends_the_answer_and_is_cut(engine):
    whole = engine.generate("One, two, three,", GREEDY | {"max_new_tokens": 20})["text"]
    assert "six" in whole
    result = engine.generate("One, two, three,", GREEDY | {"max_new_tokens": 20, "stop": "six"})
    assert result["text"] == whole[: whole.index("six")]
    assert result["meta_info"]["finish_reason"] == {"type": "stop", "matched": "six"}
    assert engine.get_server_info()["running"] == 0 or engine.flush_cache()


def test_a_stream_grows_to_the_whole_answer(engine):
    whole = engine.generate("The sky is", GREEDY)
    texts = [part["text"] for part in engine.generate("The sky is", GREEDY, stream=True)]
    assert texts[-1] == whole["text"]
    assert len(texts) == GREEDY["max_new_tokens"]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))


def test_a_stream_that_is_closed_early_leaves_nothing_running(engine):
    stream = engine.generate("The sky is", GREEDY | {"max_new_tokens": 500, "ignore_eos": True}, stream=True)
    next(stream)
    stream.close()
    assert engine.flush_cache()


def test_a_flush_in_between_takes_nothing_from_a_stream(engine):
    alone = engine.generate("The sky is", GREEDY)
    said = []
    for each in engine.generate("The sky is", GREEDY, stream=True):
        engine.flush_cache()
        said = each["output_ids"]
    assert said == alone["output_ids"]


def test_a_refusal_is_told_when_nothing_else_runs():
    with Engine(grammar_backend="none", max_total_tokens=64, cpu_threads=1) as engine:
        with pytest.raises(ValueError, match="grammar"):
            engine.generate("Hi", GREEDY | {"regex": "a+"})
        for each in engine.generate("Hi", GREEDY | {"max_new_tokens": 1, "ignore_eos": True}, stream=True):
            assert each["meta_info"]["finish_reason"]["type"] == "length"


def test_concurrent_callers_share_the_engine(engine):
    async def both():
        return await asyncio.gather(
            engine.async_generate("The sky is", GREEDY),
            engine.async_generate("One, two, three,", GREEDY),
        )

    together = asyncio.run(both())
    alone = [engine.generate(prompt, GREEDY) for prompt in ("The sky is", "One, two, three,")]
    # In bfloat16 two rows round differently than one, so only how the answers begin has to be the same.
    assert [each["text"].split()[:3] for each in together] == [each["text"].split()[:3] for each in alone]
    assert together[0]["text"] != together[1]["text"]


def test_a_shutdown_ends_those_who_generate_in_other_threads():
    engine = Engine(max_total_tokens=1024, cpu_threads=1)
    stream = engine.generate("The sky is", GREEDY | {"max_new_tokens": 500, "ignore_eos": True}, stream=True)
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(engine.generate, "One, two", GREEDY | {"max_new_tokens": 900, "ignore_eos": True})
        while engine.get_server_info()["running"] < 2:
            next(stream)
        engine.shutdown()
        with pytest.raises(RuntimeError, match="the engine was shut down"):
            waiting.result(30)
    for late in (lambda: next(stream), lambda: engine.generate("a", GREEDY)):
        with pytest.raises(RuntimeError, match="the engine was shut down"):
            late()


@pytest.fixture
def interruptible():
    """Ctrl-C as in a fresh process, whatever a test before has left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("within", [(Scheduler, "step"), (Running, "take_in")], ids=["step", "take_in"])
def test_ctrl_c_leaves_nothing_behind(interruptible, monkeypatch, within):
    calls, usual = itertools.count(), getattr(*within)
    interrupted: set[int] = set()

    def interrupting(*args):
        if next(calls) in interrupted:
            signal.raise_signal(signal.SIGINT)
        return usual(*args)

    monkeypatch.setattr(*within, interrupting)
    with Engine(max_total_tokens=1024, cpu_threads=1, check_invariants=True) as engine:
        alone = engine.generate("The sky is", GREEDY)
        for later in (0, 1, 2, 5):
            interrupted = {next(calls) + 1 + later}
            with pytest.raises(KeyboardInterrupt):
                engine.generate("One, two", GREEDY | {"max_new_tokens": 50, "ignore_eos": True})
            assert engine.generate("The sky is", GREEDY)["output_ids"] == alone["output_ids"]
        assert engine.flush_cache()


def test_a_tokenizer_of_its_own(tmp_path):
    folder = write_folder(tmp_path)
    with Engine(tokenizer_path=str(folder), max_total_tokens=64, cpu_threads=1) as engine:
        assert engine.tokenizer.vocab_size == load_tokenizer(folder).vocab_size


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"prompt": "a", "sampling_params": {"temperature": -1}}, "temperature must be .* got -1"),
        ({"prompt": "a", "sampling_params": {"max_new_tokens": -5}}, "max_new_tokens must be at least 0, got -5"),
        ({"prompt": "a", "sampling_params": {"heat": 1}}, "unknown sampling parameter 'heat'"),
        ({"prompt": "a", "sampling_params": {"top_k": "many"}}, "top_k"),
        ({"prompt": "a", "sampling_params": {"n": 10**9}}, "n must be between 1 and 128, got 1000000000"),
        ({"prompt": "a", "sampling_params": {"top_p": 1e-50}}, "top_p must be .*, got 1e-50"),
        ({"prompt": ""}, "prompt is empty"),
        ({"input_ids": [1, 99999999]}, "99999999 is not in the model's vocabulary"),
        ({"input_ids": [1] * 9000}, r"9000 tokens\) is longer than the model's context length \(8192 tokens\)"),
        (
            {"prompt": "a", "sampling_params": {"max_new_tokens": 9000}},
            "exceeds the model's maximum context length of 8192",
        ),
        ({}, "give either prompt or input_ids"),
        ({"prompt": ["a", "b"], "sampling_params": [SamplingParams()]}, "1 sampling_params for 2 prompts"),
    ],
)
def test_bad_input_says_what_is_wrong(engine, call, message):
    with pytest.raises(ValueError, match=message):
        engine.generate(**call)
    assert engine.flush_cache()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"model_path": "/no/such/folder"}, "/no/such/folder"),
        ({"tokenizer_path": "/no/such/tokenizer"}, "/no/such/tokenizer"),
        ({"dtype": "int3"}, "dtype must be one of auto, .*, got 'int3'"),
        ({"attention_backend": "magic"}, "attention_backend must be one of auto, .*, got 'magic'"),
        ({"device": "cuda"}, "no CUDA device"),
        ({"max_prefill_tokens": 0}, "max_prefill_tokens must be at least 1, got 0"),
        ({"chunked_prefill_size": -7}, "chunked_prefill_size must be -1 .* or at least 1, got -7"),
        ({"page_size": 0}, "page_size must be at least 1, got 0"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(args, message):
    with pytest.raises(ValueError, match=message):
        Engine(**args)
