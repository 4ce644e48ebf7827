"""Weights from a GGUF file: dequantised, renamed, and with the row order that Hugging Face models expect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize

from backend.loader.gguf_config import NO_WEIGHTS
from backend.loader.gguf_families import FAMILIES, GGUFFamily
from backend.loader.model_config import ModelConfig
from backend.prompt.errors import ModelError
from backend.prompt.gguf_file import GGUFFile, GGUFTensor

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_Q = GGMLQuantizationType
_PLAIN = {_Q.F32: torch.float32, _Q.F16: torch.float16, _Q.BF16: torch.bfloat16}
_BLOCKS = (_Q.Q8_0, _Q.Q4_0, _Q.Q4_1, _Q.Q5_0, _Q.Q5_1, _Q.IQ4_NL, _Q.IQ4_XS, _Q.TQ1_0, _Q.TQ2_0, _Q.MXFP4)
_K_QUANTS = (_Q.Q2_K, _Q.Q3_K, _Q.Q4_K, _Q.Q5_K, _Q.Q6_K)
_QUANTISED = (*_BLOCKS, *_K_QUANTS)


def iterate_gguf(path: Path, config: ModelConfig) -> tuple[int, Iterator[tuple[str, torch.Tensor]]]:
    """The number of tensors in ``path``, and an iterator over (Hugging Face name, tensor). Raises ModelError.

    Names and types of all tensors are checked before the first is read.
    """
    file = GGUFFile.open(path)
    family = FAMILIES[config.model_type]
    tensors = [tensor for name, tensor in file.tensors.items() if name not in NO_WEIGHTS]
    named = [(hugging_face_name(tensor.name, family, path), tensor) for tensor in tensors]
    for tensor in tensors:
        _check_type(tensor, path)
    return len(named), ((name, _load(file, tensor, config, family)) for name, tensor in named)


def hugging_face_name(name: str, family: GGUFFamily, path: Path) -> str:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``."""
    stem, _, leaf = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{leaf}"
    block, _, rest = stem.partition(".")
    layer, _, part = rest.partition(".")
    if block == "blk" and layer.isdecimal() and part in family.layer_names:
        return f"model.layers.{layer}.{family.layer_names[part]}.{leaf}"
    raise ModelError(f"{path} has the tensor {name!r}, which is not known of {family.architecture}")


def _check_type(tensor: GGUFTensor, path: Path) -> None:
    if tensor.type not in _PLAIN and tensor.type not in _QUANTISED:
        known = ", ".join(type.name for type in (*_PLAIN, *_QUANTISED))
        raise ModelError(f"{path}: tensor {tensor.name} is stored as {tensor.type_name}, which is not one of {known}")


def _load(file: GGUFFile, tensor: GGUFTensor, config: ModelConfig, family: GGUFFamily) -> torch.Tensor:
    rows = file.raw(tensor)
    if family.interleaved_heads:
        rows = _undo_interleave(rows, tensor, config)
    kind = GGMLQuantizationType(tensor.type)
    if kind in _PLAIN:
        plain = torch.from_numpy(np.array(rows)).view(_PLAIN[kind]).reshape(tensor.shape)
        return plain - family.norm_offset if family.norm_offset and tensor.name.endswith("norm.weight") else plain
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
