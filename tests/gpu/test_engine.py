"""The whole engine on a GPU: against ``transformers``, with and without graphs, and with requests that are aborted."""

import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from backend import Engine
from backend.config import ServerArgs
from backend.core import build_model
from backend.loader.model_config import load_model_config
from backend.prompt import resolve_model
from backend.runner.device import KV_DTYPES
from backend.runner.prompt_graphs import PromptGraphs
from benchmarks.kv_dtype import compared, log_probabilities
from tests.gpu.test_attention import BACKENDS

CUDA = torch.device("cuda")
VOCAB = 331
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "max_position_embeddings": 4096,
    "eos_token_id": 2,
    "initializer_range": 0.1,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(**COMMON, num_attention_heads=4, num_key_value_heads=1, head_dim=128)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(
        Qwen3Config(**COMMON, num_attention_heads=4, num_key_value_heads=2, head_dim=128)
    ),
}
DRAWN = {"temperature": 0.8, "top_p": 0.9}
WORST, MEAN = 0.8, 0.05  # of a log probability; transformers in bfloat16 is itself 0.4 off its float32 at worst


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp(request.param))
    torch.manual_seed(7)
    MODELS[request.param]().to(torch.bfloat16).save_pretrained(folder)
    return folder


def prompts(count, seed=0, longest=300):
    r = random.Random(seed)
    head = [r.randrange(3, VOCAB) for _ in range(100)]
    return [
        (head if r.random() < 0.5 else []) + [r.randrange(3, VOCAB) for _ in range(r.randint(1, longest))]
        for _ in range(count)
    ]


def make_engine(folder, **args):
    settings = {"dtype": "bfloat16", "skip_tokenizer_init": True, "max_total_tokens": 1 << 16}
    return Engine(folder, **(settings | args))


@torch.inference_mode()
def reference_logprobs(folder, sequences):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return [model(torch.tensor([ids])).logits[0].double().log_softmax(-1) for ids in sequences]


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "eager"])
def test_logprobs_are_those_of_transformers(model, backend, graphs):
    """Of every token that the engine chose, given the tokens that it chose before."""
    batch = prompts(12)
    with make_engine(model, attention_backend=backend, disable_cuda_graph=not graphs, max_running_requests=8) as engine:
        sampling = {"temperature": 0, "max_new_tokens": 40, "ignore_eos": True}
        answers = [r["output_ids"] for r in engine.generate(input_ids=batch, sampling_params=sampling, progress=False)]
    expected = reference_logprobs(model, [prompt + answer for prompt, answer in zip(batch, answers, strict=True)])
    short = []  # of the likeliest token: greedy, but for rounding
    for prompt, answer, table in zip(batch, answers, expected, strict=True):
        assert len(answer) == 40
        rows = table[len(prompt) - 1 : len(prompt) + 39]
        short.append(rows.max(-1).values - rows.gather(-1, torch.tensor(answer)[:, None])[:, 0])
    found = torch.cat(short)
    assert float(found.max()) < WORST
    assert float(found.mean()) < MEAN


def sampled(engine, batch, **sampling):
    parameters = [{"max_new_tokens": 50, "sampling_seed": i, "ignore_eos": True} | sampling for i in range(len(batch))]
    results = engine.generate(input_ids=batch, sampling_params=parameters, progress=False)
    return [result["output_ids"] for result in results]


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("sampling", [{"temperature": 0}, DRAWN], ids=["greedy", "drawn"])
def test_graphs_give_the_tokens_of_eager_steps(model, backend, sampling):
    """Most tokens: a captured step of more rows may add in another order, and one other token changes all after it.

    With ``auto`` captured prompts are the work of other kernels than eager ones, so there they are not captured.
    """
    batch = prompts(8, seed=1)
    found = []
    for graphs in (True, False):
        settings = {"disable_cuda_graph": not graphs, "disable_prefill_cuda_graph": backend == "auto"}
        with make_engine(model, attention_backend=backend, **settings) as engine:
            found.append(sampled(engine, batch, **sampling))
    same = sum(a == b for mine, theirs in zip(*found, strict=True) for a, b in zip(mine, theirs, strict=True))
    assert same >= 0.7 * 8 * 50


@pytest.mark.parametrize("sampling", [{"temperature": 0}, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("backend", ["triton", "torch_native"])
def test_graphs_give_exactly_the_tokens_of_eager_steps_in_full_precision(model, backend, sampling):
    """Torch's attention is not captured: there its eager steps are the reference of both runs."""
    batch = prompts(8, seed=2)
    found = []
    for args in ({}, {"disable_cuda_graph": True, "attention_backend": backend}):
        with make_engine(model, **({"attention_backend": "triton", "dtype": "float32"} | args)) as engine:
            found.append(sampled(engine, batch, **sampling))
    assert found[0] == found[1]


@pytest.mark.parametrize(("page_size", "sampling"), [(16, {"temperature": 0}), (1, DRAWN), (64, DRAWN)])
def test_captured_prompts_give_exactly_the_tokens_of_others_in_full_precision(model, page_size, sampling, monkeypatch):
    """In chunks beside rows that decode, with and without such rows; then again from the cache."""
    kinds, run = [], PromptGraphs.run

    def noted(graphs, inputs, size):
        kinds.append(size.singles)
        return run(graphs, inputs, size)

    monkeypatch.setattr(PromptGraphs, "run", noted)
    batch, found = prompts(8, seed=4), []
    settings = {"attention_backend": "triton", "dtype": "float32", "chunked_prefill_size": 96, "page_size": page_size}
    for eager in (True, False):
        with make_engine(model, **settings, max_running_requests=32, disable_prefill_cuda_graph=eager) as engine:
            found.append([sampled(engine, batch, **sampling) for _ in range(2)])
        assert not (eager and kinds)
    assert {True, False} == set(kinds)
    assert found[0] == found[1]


def test_compiled_steps_give_the_tokens_of_the_model_in_full_precision(model):
    batch = prompts(6, seed=6)
    found = []
    for compiles in (True, False):
        settings = {"attention_backend": "triton", "dtype": "float32", "enable_torch_compile": compiles}
        with make_engine(model, **settings, max_running_requests=8, torch_compile_max_bs=4) as engine:
            found.append(sampled(engine, batch, temperature=0))
    same = sum(a == b for mine, theirs in zip(*found, strict=True) for a, b in zip(mine, theirs, strict=True))
    assert same >= 0.9 * 6 * 50


def test_eight_bit_keys_and_values_change_little(model):
    """The distributions of the next token, by their divergence from those over keys and values as computed."""
    source = resolve_model(model)
    args, config = ServerArgs(model_path=model), load_model_config(source)
    made = build_model(args, source, config, torch.bfloat16, CUDA)
    ids = torch.tensor(prompts(1, seed=8, longest=300)[0] * 2)
    exact = log_probabilities(made, config, ids, torch.bfloat16, CUDA)
    found = {
        name: compared(exact, log_probabilities(made, config, ids, kind, CUDA)) for name, kind in KV_DTYPES.items()
    }
    assert 0 < found["fp8_e4m3"]["kl_mean"] < found["fp8_e5m2"]["kl_mean"]
    assert found["fp8_e4m3"]["kl_mean"] < 0.2  # of weights that make much of little: real models stay far below


def test_a_thousand_requests_with_aborts_leave_every_page_accounted_for(model):
    r = random.Random(5)
    with make_engine(model, max_running_requests=48, check_invariants=True) as engine:
        for _ in range(4):
            batch = prompts(250, seed=r.randrange(1000), longest=200)
            stream = engine.generate(
                input_ids=batch,
                sampling_params=[{"max_new_tokens": r.randint(1, 60), "temperature": 0.7} for _ in batch],
                stream=True,
            )
            for _ in range(r.randint(100, 3000)):
                next(stream, None)
            stream.close()  # aborts what has not finished
        assert engine.flush_cache()
        info = engine.get_server_info()
    assert info["used_tokens"] == 0
    json.dumps(info)


def test_no_step_waits_for_the_device(model):
    """Torch raises where the host would wait; what a step copies back is waited for by its event."""
    with make_engine(model, max_running_requests=8) as engine:
        sampling = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 20, "ignore_eos": True}
        engine.generate(input_ids=prompts(4), sampling_params=sampling, progress=False)
        torch.cuda.set_sync_debug_mode("error")
        try:
            engine.generate(input_ids=prompts(12, seed=3), sampling_params=sampling, progress=False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
