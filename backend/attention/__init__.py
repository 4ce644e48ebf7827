"""Attention over paged keys and values, behind one interface; a backend is imported when it is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.attention.base import AttentionBackend, AttentionShape

if TYPE_CHECKING:
    from backend.cache.kv_pool import KVPool

__all__ = ["ATTENTION_BACKENDS", "AttentionBackend", "AttentionShape", "make_attention"]

ATTENTION_BACKENDS = ("torch_sdpa",)


def make_attention(name: str, pool: KVPool, shape: AttentionShape) -> AttentionBackend:
    """The attention backend called ``name`` ("auto" chooses); ``ValueError`` for an unknown one."""
    if name in ("auto", "torch_sdpa", "torch_native"):
        from backend.attention.torch_sdpa import TorchSDPA

        return TorchSDPA(pool, shape)
    raise ValueError(f"unknown attention backend {name!r}; known: {', '.join(ATTENTION_BACKENDS)}")
