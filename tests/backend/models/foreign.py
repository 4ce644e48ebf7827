"""Tiny random models of architectures that have no file here, so that ``transformers`` runs them."""

from transformers import (
    Cohere2Config,
    Cohere2ForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Glm4MoeLiteConfig,
    Glm4MoeLiteForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from tests.backend.models.families import COMMON, WINDOW, Variant

FOREIGN: dict[str, Variant] = {
    "olmo2": Variant(lambda: Olmo2ForCausalLM(Olmo2Config(**COMMON)), "norms behind the blocks only"),
    "olmo3": Variant(
        lambda: Olmo3ForCausalLM(Olmo3Config(**{**COMMON, "num_hidden_layers": 4}, sliding_window=WINDOW)),
        "windows on three layers of four",
    ),
    "olmoe": Variant(lambda: OlmoeForCausalLM(OlmoeConfig(**COMMON, num_experts=6, num_experts_per_tok=2)), "experts"),
    "stablelm": Variant(lambda: StableLmForCausalLM(StableLmConfig(**COMMON)), "layer norms, heads turned in part"),
    "gpt-neox": Variant(
        lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**COMMON)),
        "attention beside the feed-forward block, head of another name",
    ),
    "cohere": Variant(
        lambda: CohereForCausalLM(CohereConfig(**COMMON, logit_scale=0.25, pad_token_id=0)), "scaled logits"
    ),
    "cohere2": Variant(
        lambda: Cohere2ForCausalLM(Cohere2Config(**COMMON, sliding_window=WINDOW, pad_token_id=0)),
        "windows with positions, full layers without",
    ),
    "granite": Variant(
        lambda: GraniteForCausalLM(GraniteConfig(**COMMON, logits_scaling=2.0, attention_multiplier=0.2)),
        "scales of its own",
    ),
    "gpt2": Variant(
        lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=97, n_embd=48, n_layer=3, n_head=6, n_positions=256, initializer_range=0.2)
        ),
        "learned positions",
    ),
    "opt": Variant(
        lambda: OPTForCausalLM(OPTConfig(**COMMON, ffn_dim=80, word_embed_proj_dim=48, pad_token_id=0)),
        "learned positions",
    ),
    "glm4-moe-lite": Variant(
        lambda: Glm4MoeLiteForCausalLM(
            Glm4MoeLiteConfig(
                **{**COMMON, "num_attention_heads": 5, "num_key_value_heads": 5},  # no divisor of the hidden size
                q_lora_rank=20,
                kv_lora_rank=16,
                qk_nope_head_dim=8,
                qk_rope_head_dim=4,
                v_head_dim=10,
                moe_intermediate_size=24,
                n_routed_experts=4,
                num_experts_per_tok=2,
            )
        ),
        "values smaller than keys",
    ),
}
