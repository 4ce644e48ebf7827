"""A configuration says the same in the form of transformers 4 and of 5; published ones give the published models."""

from dataclasses import replace

import pytest
import torch

from backend.loader.model_config import parse_config
from backend.models.build import footprint
from tests.backend.models.families import TEXT_PARTS, VARIANTS

CASES = {**VARIANTS, **TEXT_PARTS}


def in_form_4(raw):
    """``rope_parameters`` as the keys that came before it."""
    old = {key: value for key, value in raw.items() if key not in ("rope_parameters", "dtype", "layer_types")}
    kept = {key: raw[key] for key in ("layer_types",) if raw["model_type"] in ("gpt_oss", "gemma3_text", "qwen2")}
    rope = raw["rope_parameters"]
    if "sliding_attention" in rope:
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    if "partial_rotary_factor" in rope:
        old["partial_rotary_factor"] = rope["partial_rotary_factor"]
    plain = rope["rope_type"] == "default"
    return {**old, **kept, "torch_dtype": raw["dtype"], "rope_theta": rope["rope_theta"]} | (
        {"rope_scaling": None} if plain else {"rope_scaling": scaling}
    )


def comparable(config):
    """Without the raw keys, which differ by intent."""
    local = config.local_rope and replace(config.local_rope, raw={})
    return replace(config, raw={}, rope=replace(config.rope, raw={}), local_rope=local)


@pytest.mark.parametrize("name", CASES)
def test_both_forms_say_the_same(name):
    model = CASES[name].make()
    raw = {**model.config.to_dict(), "architectures": [type(model).__name__], "dtype": "bfloat16"}
    new, old = parse_config(raw, "new"), parse_config(in_form_4(raw), "old")
    assert comparable(old) == comparable(new)
    scaling = new.rope.raw
    assert {key: old.rope.raw[key] for key in old.rope.raw} == {key: scaling[key] for key in old.rope.raw}


QWEN_MATH = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 4096,
    "max_window_layers": 28,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
}
PHI4 = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "vocab_size": 100352,
    "max_position_embeddings": 16384,
    "sliding_window": None,
    "rope_theta": 250000,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
}
PUBLISHED = {
    "Qwen2.5-Math-7B": (QWEN_MATH, 7_615_616_512, {None}),
    "Mistral-7B-v0.1": (MISTRAL, 7_241_732_096, {4096}),
    "Mistral-7B-v0.2, no window": ({**MISTRAL, "sliding_window": None}, 7_241_732_096, {None}),
    "Phi-4": (PHI4, 14_659_507_200, {None}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(name):
    raw, parameters, windows = PUBLISHED[name]
    config = parse_config(raw, name)
    assert set(config.windows) == windows
    assert config.rope.theta == raw["rope_theta"]
    assert footprint(config, torch.bfloat16).parameters == parameters
