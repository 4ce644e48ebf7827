"""Tiny models as transformers saves them, and the same weights as a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from tests.backend.prompt.tiny import save_gguf

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tiny_llama(**changes: object) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes}))


def tiny_qwen3(**changes: object) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(Qwen3Config(**{**SHAPE, "head_dim": 32, **changes}))


def gguf_name(name: str) -> str:
    """``model.layers.1.mlp.up_proj.weight`` -> ``blk.1.ffn_up.weight``."""
    stem, leaf = name.rsplit(".", 1)
    if not stem.startswith("model.layers."):
        return f"{GGUF_NAMES[stem]}.{leaf}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{leaf}"


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Order Q or K rows as GGUF's llama stores them: the two halves of each head take turns."""
    order = np.arange(rows.shape[0]).reshape(heads, 2, -1).transpose(0, 2, 1).reshape(-1)
    return rows[order]


def write_model_gguf(
    path: Path, model: PreTrainedModel, kind: GGMLQuantizationType = GGMLQuantizationType.F32
) -> dict[str, torch.Tensor]:
    """Write ``model`` with its matrices stored as ``kind``; returns the weights in Hugging Face names and order."""
    config = model.config
    writer = GGUFWriter(path, config.model_type)
    add_shape(writer, config)
    weights = dict(model.state_dict())
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    for name, weight in weights.items():
        rows = weight.numpy()
        if config.model_type == "llama" and name.endswith("q_proj.weight"):
            rows = interleave(rows, config.num_attention_heads)
        if config.model_type == "llama" and name.endswith("k_proj.weight"):
            rows = interleave(rows, config.num_key_value_heads)
        stored = kind if rows.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), quantize(rows, stored), raw_dtype=stored)
    save_gguf(writer)
    return weights


def add_shape(
    writer: GGUFWriter, config: PretrainedConfig, *, head_dim: int | None = None, rope_theta: float | None = None
) -> None:
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim or config.head_dim)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope_theta or config.rope_parameters["rope_theta"])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
