"""The default model, read from its GGUF file by us and by ``transformers``: the same greedy tokens in float32."""

import pytest
import torch

from backend import Engine
from backend.prompt import resolve_model
from tests.backend.tiny_models import greedy_of

PROMPTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n    if n < 2:\n",
    "In 1969, 3 men flew",
]
NEW_TOKENS = 20


@pytest.fixture(scope="module")
def expected():
    from transformers import AutoModelForCausalLM

    source = resolve_model(None)
    model = AutoModelForCausalLM.from_pretrained(
        source.path.parent, gguf_file=source.path.name, dtype=torch.float32
    ).eval()
    return lambda ids: greedy_of(model, ids, NEW_TOKENS)


def test_tokens_equal_the_reference(expected):
    sampling = {"temperature": 0, "max_new_tokens": NEW_TOKENS}
    with Engine(dtype="float32", cpu_threads=1, max_total_tokens=2048, chunked_prefill_size=8) as engine:
        ids = [engine.tokenizer.encode(prompt, add_special_tokens=False) for prompt in PROMPTS]
        cold = [result["output_ids"] for result in engine.generate(input_ids=ids, sampling_params=sampling)]
        warm = [engine.generate(input_ids=each, sampling_params=sampling)["output_ids"] for each in ids]
    assert cold == warm == [expected(each) for each in ids]
