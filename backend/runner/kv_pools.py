"""The KV pools of a model, and attention over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from backend.attention import AttentionBackend, AttentionShape, make_attention
from backend.attention.windowed import WindowedAttention
from backend.cache.kv_pool import KVPool
from backend.config import ServerArgs
from backend.loader.model_config import ModelConfig
from backend.scheduler.limits import SchedulerLimits


class Pools(NamedTuple):
    """``window`` is of the layers that see a window, where those have pages of their own; else ``whole`` has all."""

    whole: KVPool
    window: KVPool | None = None


def make_pools(limits: SchedulerLimits, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Pools:
    """Allocate what ``limits`` say."""

    def pool(layers: int, pages: int) -> KVPool:
        return KVPool(
            num_layers=layers,
            num_pages=pages,
            page_size=limits.page_size,
            kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            dtype=dtype,
            device=device,
            latent=config.latent,
        )

    if limits.window is None:
        return Pools(pool(config.num_layers, limits.num_pages))
    windows = sum(window is not None for window in config.windows)
    return Pools(pool(config.num_layers - windows, limits.num_pages), pool(windows, limits.window.num_pages))


def paged_attention(args: ServerArgs, pools: Pools, shapes: Sequence[AttentionShape]) -> AttentionBackend:
    """What ``args`` ask for over ``pools``; ``shapes`` has one entry for each layer."""
    if pools.window is None:
        return make_attention(args, pools.whole, shapes)
    whole = [shape for shape in shapes if shape.window is None]
    window = [shape for shape in shapes if shape.window is not None]
    return WindowedAttention(
        make_attention(args, pools.whole, whole) if whole else None,
        make_attention(args, pools.window, window),
        [shape.window is not None for shape in shapes],
    )
