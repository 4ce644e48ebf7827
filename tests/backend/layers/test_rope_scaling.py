"""Frequencies equal those of transformers for every kind of rope scaling."""

import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from backend.layers.rope_scaling import frequencies
from backend.loader.rope_config import RopeConfig, parse_local_rope, parse_rope

POSITIONS = 4096
HEAD = 64
SHAPE = {"hidden_size": 128, "num_attention_heads": 2, "head_dim": HEAD, "max_position_embeddings": POSITIONS}
FACTORS = {"short_factor": [1.0 + i / 40 for i in range(32)], "long_factor": [1.0 + i for i in range(32)]}
KINDS = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn-deepseek": {
        "factor": 40.0,
        "original_max_position_embeddings": 1024,
        "mscale": 1.0,
        "mscale_all_dim": 0.707,
        "beta_fast": 32,
        "beta_slow": 1,
    },
    "yarn-untruncated": {"factor": 32.0, "original_max_position_embeddings": 1024, "truncate": False},
    "yarn-attention-factor": {"factor": 4.0, "original_max_position_embeddings": 1024, "attention_factor": 1.5},
    "longrope": {**FACTORS, "original_max_position_embeddings": 1024},
}


@pytest.mark.parametrize("theta", [10000.0, 150000.0])
@pytest.mark.parametrize("positions", [512, POSITIONS, 3 * POSITIONS])
@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_are_those_of_transformers(kind, positions, theta):
    parameters = {"rope_type": kind.partition("-")[0], "rope_theta": theta, **KINDS[kind]}
    expected, scale = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](
        LlamaConfig(**SHAPE, rope_parameters=parameters), "cpu", seq_len=positions
    )
    ours, our_scale = frequencies(parse_rope({**SHAPE, "rope_parameters": parameters}), HEAD, positions)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
    assert our_scale == pytest.approx(scale)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="rope_type 'spiral' is not supported; known: default, linear"):
        frequencies(RopeConfig(10000.0, "spiral"), HEAD, POSITIONS)


@pytest.mark.parametrize("kind", ["llama3", "yarn", "longrope"])
def test_a_missing_original_context_is_named(kind):
    with pytest.raises(ValueError, match="needs original_max_position_embeddings"):
        frequencies(RopeConfig(10000.0, kind, 4.0), HEAD, POSITIONS)


def test_longrope_wants_a_factor_for_each_plane():
    rope = RopeConfig(10000.0, "longrope", 4.0, original_max_position_embeddings=1024, raw=FACTORS)
    with pytest.raises(ValueError, match="long_factor with 16 values"):
        frequencies(rope, 32, POSITIONS)


def test_phi3s_old_names_mean_longrope():
    raw = {"model_type": "phi3", "rope_scaling": {"type": "su", **FACTORS}, "original_max_position_embeddings": 4096}
    rope = parse_rope({**raw, "max_position_embeddings": 131072})
    assert (rope.rope_type, rope.factor, rope.original_max_position_embeddings) == ("longrope", 32.0, 4096)


def test_gemma3s_two_sets_in_both_spellings():
    old = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    }
    for raw in (old, new):
        rope, local = parse_rope(raw), parse_local_rope(raw)
        assert (rope.theta, rope.rope_type, rope.factor) == (1e6, "linear", 8.0)
        assert (local.theta, local.rope_type) == (1e4, "default")


@pytest.mark.parametrize("wrong", [{"theta": 0.0}, {"theta": math.nan}, {"theta": 1e4, "factor": -1.0}])
def test_a_base_or_factor_that_turns_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        frequencies(RopeConfig(**wrong), 8, 64)
