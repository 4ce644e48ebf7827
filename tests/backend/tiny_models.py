"""Tiny random models written by ``transformers``, and greedy generation by it as the reference."""

import functools

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCAB = 97
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # wide, so that greedy choices are far apart and depend on the whole context
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**COMMON, tie_word_embeddings=False)),
    "llama3-rope-tied-bias": lambda: LlamaForCausalLM(
        LlamaConfig(**COMMON, tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE, attention_bias=True, mlp_bias=True)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=16, tie_word_embeddings=True)),
    "qwen3-untied": lambda: Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=8, tie_word_embeddings=False)),
}


def write_model(name, folder):
    """Save model ``name`` with seeded weights in ``folder`` (no tokenizer); returns the folder's path."""
    return save_tiny(name, MODELS[name], folder)


def save_tiny(name, make, folder):
    """Save what ``make`` gives in ``folder``, its weights drawn with a seed from ``name``; returns the path."""
    torch.manual_seed(sum(map(ord, name)))
    model = make()
    with torch.no_grad():
        corrections = [buffer for name, buffer in model.named_buffers() if name.endswith("correction_bias")]
        for parameter in [*model.parameters(), *corrections]:
            if parameter.dim() == 1:  # norms and biases: anything but ones and zeros
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return str(folder)


@functools.cache
def load_reference(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def greedy(folder, prompt, max_new_tokens):
    """Token ids that ``transformers`` generates after ``prompt``."""
    return list(_greedy(folder, tuple(prompt), max_new_tokens))


@functools.cache
def _greedy(folder, prompt, max_new_tokens):
    return tuple(greedy_of(load_reference(folder), prompt, max_new_tokens))


@torch.inference_mode()
def greedy_of(model, prompt, max_new_tokens):
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=0
    )
    return out[0, len(prompt) :].tolist()
