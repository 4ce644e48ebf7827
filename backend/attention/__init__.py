"""Attention over paged keys and values, behind one interface; a backend is imported when it is chosen."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backend.attention.base import AttentionBackend, AttentionShape

if TYPE_CHECKING:
    from backend.cache.kv_pool import KVPool
    from backend.config import ServerArgs

__all__ = ["ATTENTION_BACKENDS", "AttentionBackend", "AttentionShape", "attention_class", "make_attention"]

ATTENTION_BACKENDS = {
    "flashinfer": "backend.attention.flashinfer:FlashInfer",
    "triton": "backend.attention.triton:TritonAttention",
    "torch_native": "backend.attention.torch_sdpa:TorchSDPA",
}
FASTEST_FIRST = {"cuda": ("flashinfer", "triton", "torch_native"), "cpu": ("torch_native",)}
SPELLINGS = {"torch_sdpa": "torch_native"}


def attention_class(name: str) -> type[AttentionBackend]:
    """The attention backend called ``name``; ``ValueError`` for an unknown one, or one that is not installed."""
    name = SPELLINGS.get(name, name)
    if name not in ATTENTION_BACKENDS:
        raise ValueError(f"unknown attention backend {name!r}; known: {', '.join(ATTENTION_BACKENDS)}")
    module, kind = ATTENTION_BACKENDS[name].split(":")
    try:
        found: type[AttentionBackend] = getattr(importlib.import_module(module), kind)
    except ModuleNotFoundError as error:
        package = "flashinfer-python" if error.name == "flashinfer" else error.name
        raise ValueError(f"--attention-backend {name} is not installed: pip install {package}") from None
    return found


def make_attention(args: ServerArgs, pool: KVPool, shapes: Sequence[AttentionShape]) -> AttentionBackend:
    """The backend that ``args`` ask for, or one for rows of one token and one for longer rows."""
    decode = args.decode_attention_backend or args.attention_backend
    prefill = args.prefill_attention_backend or args.attention_backend
    if decode == prefill:
        return _make(decode, pool, shapes)
    from backend.attention.split import SplitAttention

    return SplitAttention(_make(decode, pool, shapes), _make(prefill, pool, shapes))


def _make(name: str, pool: KVPool, shapes: Sequence[AttentionShape]) -> AttentionBackend:
    """The backend called ``name``; ``auto`` is the fastest one that is installed and computes ``shapes``."""
    if name != "auto":
        return attention_class(name)(pool, shapes)
    candidates = FASTEST_FIRST[pool.keys[0].device.type]
    for candidate in candidates[:-1]:
        if importlib.util.find_spec(candidate) is None:
            continue
        try:
            return attention_class(candidate)(pool, shapes)
        except ValueError:  # this model's shapes are not among what it computes
            continue
    return attention_class(candidates[-1])(pool, shapes)
