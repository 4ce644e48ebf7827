"""A family's GGUF file, written with the names of the gguf package, gives the logits of the original model."""

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, MODEL_ARCH, GGMLQuantizationType, GGUFWriter, RopeScalingType, get_tensor_name_map
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from backend.loader.model_config import load_model_config
from backend.loader.weights import iterate_weights
from backend.prompt import resolve_model
from tests.backend.loader.tiny import add_shape, tiny_llama
from tests.backend.models.families import VARIANTS
from tests.backend.models.paged import Paged
from tests.backend.models.parity import WAYS, reference, sequences
from tests.backend.prompt.tiny import save_gguf
from tests.backend.tiny_models import COMMON, load_reference, save_tiny

ROWS = sequences((90, 41, 50, 35))
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


def make_gemma3():
    """Six layers, of which the last sees everything: what a file cannot say otherwise."""
    shape = {**COMMON, "num_hidden_layers": 6, "head_dim": 16, "query_pre_attn_scalar": 16}
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape, sliding_window=12, rope_parameters=GEMMA3_ROPE))


CASES = {
    "qwen2": (MODEL_ARCH.QWEN2, VARIANTS["qwen2"].make),
    "qwen3": (MODEL_ARCH.QWEN3, VARIANTS["qwen3"].make),
    "gemma3": (MODEL_ARCH.GEMMA3, make_gemma3),
    "phi3": (MODEL_ARCH.PHI3, VARIANTS["phi3"].make),
    "phi3-longrope": (MODEL_ARCH.PHI3, VARIANTS["phi3-longrope"].make),
}
# Where the float16 scales of a block begin, and how many there are.
K_QUANTS = {"Q2_K": (80, 2), "Q3_K": (108, 1), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208, 1)}


def write_gguf(path, model, arch):
    """Write ``model`` as llama.cpp's converter would: its names, one added to Gemma's norms, RoPE factors apart."""
    config = model.config
    writer = GGUFWriter(path, config.model_type.removesuffix("_text"))
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    add_shape(writer, config, head_dim=getattr(config, "head_dim", 8), rope_theta=rope["rope_theta"])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_dimension_count(2 * len(rope["long_factor"]))
        for kind in ("long", "short"):
            writer.add_tensor(f"rope_factors_{kind}.weight", np.array(rope[f"{kind}_factor"], np.float32))
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        extra = 1.0 if arch is MODEL_ARCH.GEMMA3 and name.endswith("norm.weight") else 0.0
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight.numpy() + np.float32(extra))
    save_gguf(writer)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_original(tmp_path, case):
    arch, make = CASES[case]
    folder = save_tiny(case, make, tmp_path / "folder")
    write_gguf(tmp_path / "m.gguf", load_reference(folder), arch)
    ours = WAYS["mixed batches"](Paged(str(tmp_path / "m.gguf")), ROWS)
    for mine, theirs in zip(ours, reference(folder, ROWS), strict=True):
        assert float((mine - theirs).abs().max()) < 1e-4


def random_blocks(kind, scales, rows):
    """Rows of one block of random bytes each, with small scales; the package reads K-quants and cannot write them."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (rows, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    begin, count = scales
    blocks[:, begin : begin + 2 * count] = np.full((rows, count), 0.01, np.float16).view(np.uint8)
    return blocks


@pytest.mark.parametrize("kind", K_QUANTS)
def test_k_quants_are_read(tmp_path, kind):
    scales, kind = K_QUANTS[kind], GGMLQuantizationType[kind]
    rows, width = 64, 256
    stored = random_blocks(kind, scales, rows)
    writer = GGUFWriter(tmp_path / "m.gguf", "qwen3")
    add_shape(writer, tiny_llama().config)
    writer.add_tensor("token_embd.weight", stored, raw_dtype=kind)
    save_gguf(writer)
    source = resolve_model(str(tmp_path / "m.gguf"))
    weights = dict(iterate_weights(source, load_model_config(source)))
    weight = weights["model.embed_tokens.weight"]
    assert weight.shape == (rows, width)
    assert weight.dtype == torch.float32
    assert torch.isfinite(weight).all()
    assert len(weight.unique()) > 16
