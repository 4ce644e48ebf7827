"""Configurations for measuring: real shapes that are loaded with random weights, and small ones of every family."""

from __future__ import annotations

from typing import Any

Shape = dict[str, Any]

_QWEN3: Shape = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 151645,
}
QWEN3_8B = _QWEN3 | {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
QWEN3_30B_A3B = _QWEN3 | {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
}
DEEPSEEK_V2_LITE: Shape = {
    "model_type": "deepseek_v2",
    "architectures": ["DeepseekV2ForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "n_shared_experts": 2,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "routed_scaling_factor": 1.0,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "norm_topk_prob": False,
    "vocab_size": 102400,
    "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 100001,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 40,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096,
    },
}
LARGE: dict[str, Shape] = {
    "qwen3-8b": QWEN3_8B,
    "qwen3-30b-a3b": QWEN3_30B_A3B,
    "deepseek-v2-lite": DEEPSEEK_V2_LITE,
}

_SMALL: Shape = {
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "bos_token_id": 1,
}
_WINDOW = {"sliding_window": 100}
_GEMMA = {"query_pre_attn_scalar": 128, "tie_word_embeddings": True, **_WINDOW}
_EXPERTS = {"num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
_MLA = {
    "num_key_value_heads": 8,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 192,
    "first_k_dense_replace": 1,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
}


def _small(architecture: str, model_type: str, **changes: Any) -> Shape:
    return {**_SMALL, "architectures": [f"{architecture}ForCausalLM"], "model_type": model_type, **changes}


SMALL: dict[str, Shape] = {
    "llama": _small("Llama", "llama"),
    "mistral": _small("Mistral", "mistral", **_WINDOW),
    "qwen2": _small("Qwen2", "qwen2"),
    "qwen3": _small("Qwen3", "qwen3"),
    "phi3": _small("Phi3", "phi3", **_WINDOW),
    "gemma": _small("Gemma", "gemma", tie_word_embeddings=True),
    "gemma2": _small("Gemma2", "gemma2", **_GEMMA),
    "gemma3": _small("Gemma3", "gemma3_text", **_GEMMA, sliding_window_pattern=3),
    "mixtral": _small("Mixtral", "mixtral", **_EXPERTS),
    "qwen3-moe": _small("Qwen3Moe", "qwen3_moe", **_EXPERTS, norm_topk_prob=True),
    "gpt-oss": _small("GptOss", "gpt_oss", **_EXPERTS, **_WINDOW),
    "deepseek-v2": _small("DeepseekV2", "deepseek_v2", **_MLA),
    "deepseek-v3": _small("DeepseekV3", "deepseek_v3", **_MLA | {"q_lora_rank": 96, "n_group": 2, "topk_group": 1}),
}
