"""Attention over paged keys and values, behind one interface; a backend is imported when it is chosen."""

from __future__ import annotations

from backend.attention.base import AttentionBackend, AttentionShape

__all__ = ["ATTENTION_BACKENDS", "AttentionBackend", "AttentionShape", "attention_class"]

ATTENTION_BACKENDS = ("torch_sdpa",)


def attention_class(name: str) -> type[AttentionBackend]:
    """The attention backend called ``name`` ("auto" chooses); ``ValueError`` for an unknown one."""
    if name in ("auto", "torch_sdpa", "torch_native"):
        from backend.attention.torch_sdpa import TorchSDPA

        return TorchSDPA
    raise ValueError(f"unknown attention backend {name!r}; known: {', '.join(ATTENTION_BACKENDS)}")
