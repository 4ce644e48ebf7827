"""Weights from a GGUF file: dequantised, renamed, and with the row order that Hugging Face models expect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize

from backend.loader.gguf_config import ROPE_FREQS
from backend.loader.model_config import ModelConfig
from backend.prompt.errors import ModelError
from backend.prompt.gguf_file import GGUFFile, GGUFTensor

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_LAYER = {
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
_PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
_QUANTISED = (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1)


def iterate_gguf(path: Path, config: ModelConfig) -> tuple[int, Iterator[tuple[str, torch.Tensor]]]:
    """The number of tensors in ``path``, and an iterator over (Hugging Face name, tensor). Raises ModelError.

    Names and types of all tensors are checked before the first is read.
    """
    file = GGUFFile.open(path)
    # rope_freqs holds no weights: it is the RoPE scaling, which the configuration has read already.
    tensors = [tensor for name, tensor in file.tensors.items() if name != ROPE_FREQS]
    named = [(hugging_face_name(tensor.name, path), tensor) for tensor in tensors]
    for tensor in tensors:
        _check_type(tensor, path)
    return len(named), ((name, _load(file, tensor, config)) for name, tensor in named)


def hugging_face_name(name: str, path: Path) -> str:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``."""
    stem, _, leaf = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{leaf}"
    block, _, rest = stem.partition(".")
    layer, _, part = rest.partition(".")
    if block == "blk" and layer.isdecimal() and part in _IN_LAYER:
        return f"model.layers.{layer}.{_IN_LAYER[part]}.{leaf}"
    raise ModelError(f"{path} has the tensor {name!r}, which belongs to no supported architecture")


def _check_type(tensor: GGUFTensor, path: Path) -> None:
    if tensor.type not in _PLAIN and tensor.type not in _QUANTISED:
        known = ", ".join(type.name for type in (*_PLAIN, *_QUANTISED))
        raise ModelError(f"{path}: tensor {tensor.name} is stored as {tensor.type_name}, which is not one of {known}")


def _load(file: GGUFFile, tensor: GGUFTensor, config: ModelConfig) -> torch.Tensor:
    rows = file.raw(tensor)
    if config.model_type == "llama":
        rows = _undo_interleave(rows, tensor, config)
    kind = GGMLQuantizationType(tensor.type)
    if kind in _PLAIN:
        return torch.from_numpy(np.array(rows)).view(_PLAIN[kind]).reshape(tensor.shape)
    return torch.from_numpy(dequantize(rows, kind)).reshape(tensor.shape)


def _undo_interleave(rows: np.ndarray, tensor: GGUFTensor, config: ModelConfig) -> np.ndarray:
    """Q and K rows of GGUF's llama are stored as rotary pairs (0, d/2, 1, d/2+1, ...); give back halves.

    Blocks of quantised values lie along a row, so rows can be moved before they are dequantised.
    """
    if ".attn_q." in tensor.name:
        heads = config.num_heads
    elif ".attn_k." in tensor.name:
        heads = config.num_kv_heads
    else:
        return rows
    per_row = rows.reshape(tensor.shape[0], -1)
    return per_row.reshape(heads, -1, 2, per_row.shape[1]).swapaxes(1, 2).reshape(per_row.shape)
