"""One tiny random model for each thing that a family does differently, and what makes it worth a test.

``VARIANTS`` maps a name to its factory; the name begins with the family's. Windows are 12 tokens and the original
context of scaled positions 32, so that the 90 tokens of the parity test go well beyond both.
"""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Phi4MultimodalConfig,
    Phi4MultimodalForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tests.backend.tiny_models import COMMON as WIDE
from tests.backend.tiny_models import LLAMA3_ROPE

COMMON = {**WIDE, "initializer_range": 0.2}  # narrow enough that rounding is not blown up by the layers
WINDOW = 12
ORIGINAL = 32
SCALED = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2],
    "long_factor": [1.5, 2.5, 4.0],
    "partial_rotary_factor": 0.75,
}
MLA = {
    **COMMON,
    "num_key_value_heads": COMMON["num_attention_heads"],
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 24,
    "num_experts_per_tok": 2,
}
DEEPSEEK_YARN = {"rope_type": "yarn", **SCALED, "mscale": 0.707, "mscale_all_dim": 0.9}
LENGTHS = (90, 41, 20, 7)  # of the rows: beyond the window and the original context, and within


@dataclass(frozen=True)
class Variant:
    """A model to make, and the features that the page of models names."""

    make: Callable[[], PreTrainedModel]
    features: str
    lengths: tuple[int, ...] = LENGTHS


def _llama(**changes) -> Callable[[], PreTrainedModel]:
    return lambda: LlamaForCausalLM(LlamaConfig(**COMMON, **changes))


def _phi3(**changes) -> Callable[[], PreTrainedModel]:
    return lambda: Phi3ForCausalLM(Phi3Config(**COMMON, pad_token_id=0, **changes))


VARIANTS: dict[str, Variant] = {
    "llama": Variant(_llama(), "grouped queries, SwiGLU"),
    "llama-llama3": Variant(_llama(rope_parameters=LLAMA3_ROPE), "Llama 3 rope scaling"),
    "llama-linear": Variant(_llama(rope_parameters={"rope_type": "linear", **SCALED}), "linear rope scaling"),
    "llama-dynamic": Variant(_llama(rope_parameters={"rope_type": "dynamic", **SCALED}), "dynamic rope scaling"),
    "llama-yarn": Variant(_llama(rope_parameters={"rope_type": "yarn", **SCALED}), "YaRN"),
    "mistral": Variant(
        lambda: MistralForCausalLM(MistralConfig(**COMMON, head_dim=8, sliding_window=WINDOW)), "sliding window"
    ),
    "qwen2": Variant(lambda: Qwen2ForCausalLM(Qwen2Config(**COMMON)), "bias on queries, keys, values"),
    "qwen2-window": Variant(
        lambda: Qwen2ForCausalLM(
            Qwen2Config(**COMMON, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1)
        ),
        "sliding window from a layer on",
    ),
    "qwen3": Variant(lambda: Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=16)), "normalised queries and keys"),
    "phi3": Variant(
        _phi3(sliding_window=WINDOW),
        "merged matrices, sliding window",
    ),
    "phi3-longrope": Variant(
        _phi3(rope_parameters=LONGROPE, original_max_position_embeddings=ORIGINAL),
        "LongRoPE, heads turned in part",
        lengths=(90, 41, 50, 35),  # transformers turns shorter rows by the short factors, we by those of the context
    ),
    "phi3-longrope-short": Variant(
        _phi3(rope_parameters=LONGROPE, original_max_position_embeddings=256),
        "LongRoPE within the original context",
    ),
    "gemma": Variant(
        lambda: GemmaForCausalLM(GemmaConfig(**COMMON, head_dim=16)), "scaled embeddings, norms around one"
    ),
    "gemma2": Variant(
        lambda: Gemma2ForCausalLM(Gemma2Config(**COMMON, head_dim=16, sliding_window=WINDOW, query_pre_attn_scalar=24)),
        "capped scores and logits, every other layer sees a window, norms on both sides",
    ),
    "gemma3": Variant(
        lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(
                **COMMON,
                head_dim=16,
                sliding_window=WINDOW,
                sliding_window_pattern=2,
                query_pre_attn_scalar=24,
                rope_parameters={
                    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                },
            )
        ),
        "normalised queries and keys, two sets of rope parameters, windows on most layers",
    ),
    "mixtral": Variant(
        lambda: MixtralForCausalLM(
            MixtralConfig(**COMMON, num_local_experts=5, num_experts_per_tok=2, sliding_window=WINDOW)
        ),
        "mixture of experts, sliding window",
    ),
    "qwen3-moe": Variant(
        lambda: Qwen3MoeForCausalLM(
            Qwen3MoeConfig(
                **COMMON,
                head_dim=16,
                num_experts=6,
                num_experts_per_tok=3,
                moe_intermediate_size=24,
                norm_topk_prob=True,
                mlp_only_layers=[1],
            )
        ),
        "mixture of experts, some layers dense",
    ),
    "qwen3-moe-unnormalised": Variant(
        lambda: Qwen3MoeForCausalLM(
            Qwen3MoeConfig(**COMMON, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24)
        ),
        "experts' weights as they come",
    ),
    "gpt-oss": Variant(
        lambda: GptOssForCausalLM(
            GptOssConfig(
                **COMMON,
                head_dim=16,
                num_local_experts=6,
                num_experts_per_tok=3,
                sliding_window=WINDOW,
                rope_parameters={"rope_type": "yarn", "truncate": False, **SCALED},
            )
        ),
        "mixture of experts with biases and clamped SwiGLU, attention sinks, every other layer sees a window, YaRN",
    ),
    "deepseek-v2": Variant(
        lambda: DeepseekV2ForCausalLM(
            DeepseekV2Config(**MLA, q_lora_rank=None, n_routed_experts=5, n_shared_experts=2, topk_method="greedy")
        ),
        "latent attention with compressed cache, shared experts",
    ),
    "deepseek-v2-groups": Variant(
        lambda: DeepseekV2ForCausalLM(
            DeepseekV2Config(
                **MLA,
                q_lora_rank=20,
                n_routed_experts=8,
                n_shared_experts=1,
                topk_method="group_limited_greedy",
                n_group=4,
                topk_group=2,
                routed_scaling_factor=1.5,
                rope_parameters=DEEPSEEK_YARN,
            )
        ),
        "experts by groups, compressed queries, YaRN",
    ),
    "deepseek-v3": Variant(
        lambda: DeepseekV3ForCausalLM(
            DeepseekV3Config(
                **MLA,
                q_lora_rank=20,
                n_routed_experts=8,
                n_shared_experts=1,
                n_group=4,
                topk_group=2,
                rope_parameters=DEEPSEEK_YARN,
            )
        ),
        "sigmoid scores with a correction, experts by groups, YaRN",
    ),
}

_SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
_AUDIO = {"num_blocks": 1, "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "nemo_conv_channels": 16}

# Models that are more than what is served of them.
TEXT_PARTS: dict[str, Variant] = {
    "phi4-multimodal": Variant(
        lambda: Phi4MultimodalForCausalLM(
            Phi4MultimodalConfig(
                **COMMON,
                pad_token_id=0,
                sliding_window=WINDOW,
                vision_config={**_SMALL, "num_hidden_layers": 1, "image_size": 28, "crop_size": 28},
                audio_config={**_SMALL, **_AUDIO},
            )
        ),
        "Phi-3's decoder, encoders left out",
    ),
}
