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

__all__ = [
    "ATTENTION_BACKENDS",
    "AttentionBackend",
    "AttentionShape",
    "attention_class",
    "make_attention",
    "require_pool",
]

ATTENTION_BACKENDS = {
    "flashinfer": "backend.attention.flashinfer:FlashInfer",
    "triton": "backend.attention.triton:TritonAttention",
    "torch_native": "backend.attention.torch_sdpa:TorchSDPA",
}
# Measured on an H200: our decode kernel reads longer and uneven rows faster, FlashInfer's prefill is a third faster.
FASTEST_DECODE = ("triton", "flashinfer", "torch_native")
FASTEST_PREFILL = ("flashinfer", "triton", "torch_native")
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
    """What ``args`` ask for: one backend, or one for rows of one token and one for longer rows."""
    prefill_name = args.prefill_attention_backend or args.attention_backend
    decode = _kind(args.decode_attention_backend or args.attention_backend, FASTEST_DECODE, pool, shapes)
    prefill = _kind(prefill_name, FASTEST_PREFILL, pool, shapes)
    require_pool(decode, pool)
    require_pool(prefill, pool)
    if decode is prefill:
        return decode(pool, shapes)
    from backend.attention.split import SplitAttention

    device, either = pool.keys[0].device, prefill_name == "auto"
    return SplitAttention(decode(pool, shapes), prefill(pool, shapes), device, either_captures=either)


def require_pool(kind: type[AttentionBackend], pool: KVPool) -> None:
    """``ValueError`` when ``kind`` cannot read numbers as ``pool`` holds them."""
    if not _reads(kind, pool):
        dtype = str(pool.keys[0].dtype).removeprefix("torch.")
        if pool.keys[0].dtype.itemsize > 1:
            raise ValueError(f"{kind.__name__} does not compute in {dtype}; use --attention-backend triton")
        raise ValueError(
            f"keys and values in {dtype} need the kernels of --attention-backend triton on a GPU, and not "
            f"{kind.__name__}; drop --kv-cache-dtype, or the flag that asks for other attention"
        )


def _reads(kind: type[AttentionBackend], pool: KVPool) -> bool:
    size = pool.keys[0].dtype.itemsize
    return (kind.eight_bit_pools or size > 1) and (kind.float32_pools or size < 4)


def _kind(name: str, fastest: Sequence[str], pool: KVPool, shapes: Sequence[AttentionShape]) -> type[AttentionBackend]:
    """The backend called ``name``; ``auto`` is the first of ``fastest`` that is installed and computes ``shapes``."""
    if name != "auto":
        return attention_class(name)
    if pool.keys[0].device.type == "cuda":
        for candidate in fastest[:-1]:
            if importlib.util.find_spec(candidate) is not None:
                kind = attention_class(candidate)
                if kind.computes(shapes) and _reads(kind, pool):
                    return kind
    return attention_class(fastest[-1])
