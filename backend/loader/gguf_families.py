"""What the GGUF files of each family do their own way: names, order of rows, and stored values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA3_LAYER = {
    **_LAYER,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI3_LAYER = {**_LAYER, "attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}


@dataclass(frozen=True, slots=True)
class GGUFFamily:
    """``layer_names``: names below ``blk.N`` -> names below ``model.layers.N``."""

    architecture: str
    layer_names: Mapping[str, str] = field(default_factory=lambda: _LAYER)
    interleaved_heads: bool = False  # rows of Q and K are rotary pairs (0, d/2, 1, d/2 + 1, ...)
    norm_offset: float = 0.0  # what the stored weights of norms have too much


FAMILIES: dict[str, GGUFFamily] = {
    "gemma3": GGUFFamily("Gemma3ForCausalLM", _GEMMA3_LAYER, norm_offset=1.0),
    "llama": GGUFFamily("LlamaForCausalLM", interleaved_heads=True),
    "phi3": GGUFFamily("Phi3ForCausalLM", _PHI3_LAYER),
    "qwen2": GGUFFamily("Qwen2ForCausalLM"),
    "qwen3": GGUFFamily("Qwen3ForCausalLM"),
}
