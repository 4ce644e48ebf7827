"""Architectures without a file here on the GPU: ``transformers`` runs them over our paged attention, without graphs."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
)

from backend import Engine
from tests.gpu.test_engine import COMMON, VOCAB, prompts

SMALL = {**COMMON, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "pad_token_id": 0}
MODELS = {
    "olmo2": lambda: Olmo2ForCausalLM(Olmo2Config(**SMALL)),
    "olmo3, windows": lambda: Olmo3ForCausalLM(Olmo3Config(**{**SMALL, "num_hidden_layers": 4}, sliding_window=50)),
    "olmoe, experts": lambda: OlmoeForCausalLM(OlmoeConfig(**SMALL, num_experts=6, num_experts_per_tok=2)),
}
NEW_TOKENS = 12


@torch.inference_mode()
def likeliest(folder, sequences):
    """Of each sequence, the likeliest token behind each of its last ones, and how much likelier than the second."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    best = [model(torch.tensor([ids])).logits[0, -NEW_TOKENS - 1 : -1].topk(2) for ids in sequences]
    return [found.indices[:, 0].tolist() for found in best], min(
        float(found.values.diff().abs().min()) for found in best
    )


@pytest.mark.parametrize("backend", ["auto", "triton", "torch_native"])
@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_transformers(name, backend, tmp_path):
    """Greedy, in float32, in chunks and batches; then each prompt again, from the cache."""
    torch.manual_seed(7)
    MODELS[name]().save_pretrained(tmp_path)
    batch = prompts(6, seed=3)
    sampling = {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    settings = {"skip_tokenizer_init": True, "max_total_tokens": 1 << 14, "chunked_prefill_size": 128}
    with Engine(str(tmp_path), dtype="float32", attention_backend=backend, **settings) as engine:
        rounds = [engine.generate(input_ids=batch, sampling_params=sampling, progress=False) for _ in range(2)]
    answers = [[answer["output_ids"] for answer in answers] for answers in rounds]
    assert all(0 <= token < VOCAB for answer in answers[0] for token in answer)
    expected, margin = likeliest(tmp_path, [ids + answer for ids, answer in zip(batch, answers[0], strict=True)])
    assert margin > 1e-4  # rounding decides nothing
    assert answers == [expected, expected]
