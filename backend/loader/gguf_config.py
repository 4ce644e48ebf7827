"""GGUF metadata in the words of a config.json."""

from __future__ import annotations

from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from backend.loader.gguf_families import FAMILIES
from backend.prompt.errors import ModelError
from backend.prompt.gguf_file import GGUFFile
from backend.prompt.gguf_tokenizer import end_token_ids

ROPE_FREQS = "rope_freqs.weight"
ROPE_LONG, ROPE_SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
NO_WEIGHTS = (ROPE_FREQS, ROPE_LONG, ROPE_SHORT)  # tensors that belong to the configuration
_GEMMA3_27B_LAYERS = 62  # scales its queries by another size than that of its heads, which no key tells
# llama.cpp folds Llama 3's RoPE scaling into a tensor of divisors; these are the constants of every published Llama 3.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_STORED_DTYPES: dict[int, str] = {GGMLQuantizationType.F32: "float32", GGMLQuantizationType.F16: "float16"}


def gguf_to_config(file: GGUFFile) -> dict[str, Any]:
    """The metadata of ``file`` under the keys of config.json. Raises ModelError naming a missing key."""
    metadata = file.metadata
    kind = _required(file, "general.architecture")
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(f"{file.path}: GGUF architecture {kind!r} is not supported (supported: {known})")
    layers = _required(file, f"{kind}.block_count")
    hidden, heads = _required(file, f"{kind}.embedding_length"), _required(file, f"{kind}.attention.head_count")
    head_dim = metadata.get(f"{kind}.attention.key_length") or hidden // heads
    return {
        "architectures": [FAMILIES[kind].architecture],
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": _required(file, f"{kind}.feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{kind}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": _embedding(file).shape[0],
        "max_position_embeddings": _required(file, f"{kind}.context_length"),
        "rms_norm_eps": _required(file, f"{kind}.attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope(file, kind, head_dim),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "sliding_window": metadata.get(f"{kind}.attention.sliding_window"),
        "query_pre_attn_scalar": hidden // heads if layers == _GEMMA3_27B_LAYERS else head_dim,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "hidden_act": "silu",
        "dtype": _STORED_DTYPES.get(_embedding(file).type, "bfloat16"),
        "eos_token_id": end_token_ids(metadata),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
    }


def _embedding(file: GGUFFile) -> Any:
    try:
        return file.tensors["token_embd.weight"]
    except KeyError:
        raise ModelError(f"{file.path} has no tensor token_embd.weight; is it a whole language model?") from None


def _rope(file: GGUFFile, kind: str, head_dim: int) -> dict[str, Any]:
    metadata = file.metadata
    theta = metadata.get(f"{kind}.rope.freq_base", 10000.0)
    turned = metadata.get(f"{kind}.rope.dimension_count", head_dim)
    return {**_scaling(file, kind, theta, head_dim), "rope_theta": theta, "partial_rotary_factor": turned / head_dim}


def _scaling(file: GGUFFile, kind: str, theta: float, head_dim: int) -> dict[str, Any]:
    metadata = file.metadata
    if ROPE_FREQS in file.tensors:
        return _llama3_scaling(file, theta, head_dim)
    original = metadata.get(f"{kind}.rope.scaling.original_context_length")
    if ROPE_LONG in file.tensors and ROPE_SHORT in file.tensors:
        return {
            "rope_type": "longrope",
            "long_factor": _floats(file, ROPE_LONG).tolist(),
            "short_factor": _floats(file, ROPE_SHORT).tolist(),
            "attention_factor": metadata.get(f"{kind}.rope.scaling.attn_factor"),
            "original_max_position_embeddings": original,
        }
    scaling = metadata.get(f"{kind}.rope.scaling.type", "none")
    if scaling == "none":
        return {"rope_type": "default"}
    return {
        "rope_type": scaling,
        "factor": metadata.get(f"{kind}.rope.scaling.factor", 1.0),
        "original_max_position_embeddings": original,
    }


def _floats(file: GGUFFile, name: str) -> np.ndarray:
    return file.raw(file.tensors[name]).view(np.float32).reshape(-1)


def _llama3_scaling(file: GGUFFile, theta: float, head_dim: int) -> dict[str, Any]:
    """The llama3 parameters that give the stored divisors; refused when none do, rather than served slightly wrong."""
    stored = _floats(file, ROPE_FREQS)
    parameters = {"rope_type": "llama3", "factor": float(stored.max()), **_LLAMA3}
    expected = llama3_divisors(theta, head_dim, parameters)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-3):
        raise ModelError(f"{file.path}: the frequencies in {ROPE_FREQS} are not Llama 3's, and no others are supported")
    return parameters


def llama3_divisors(theta: float, head_dim: int, parameters: dict[str, Any]) -> np.ndarray:
    """What each rotary frequency is divided by under llama3 scaling, float32[head_dim / 2]."""
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    wavelength = 2 * np.pi * theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    # 0 where the frequency is low enough to be divided in full, 1 where it stays as it is.
    kept = (parameters["original_max_position_embeddings"] / wavelength - low) / (high - low)
    kept = np.clip(kept, 0.0, 1.0)
    return (1.0 / (kept + (1.0 - kept) / parameters["factor"])).astype(np.float32)


def _required(file: GGUFFile, key: str) -> Any:
    try:
        return file.metadata[key]
    except KeyError:
        raise ModelError(f"{file.path} lacks the required metadata key {key!r}") from None
