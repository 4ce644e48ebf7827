"""How much of the KV cache's memory goes to layers that see everything, and how much to those with a window."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import torch

from backend.cache.kv_pool import KVPool
from backend.config import ServerArgs
from backend.loader.model_config import ModelConfig
from backend.scheduler.window import WindowSettings

# Without --swa-full-tokens-ratio: a window for each row, and for cached prefixes at least a tenth; no more than this.
MOST_IN_WINDOW = 0.8
LEAST_IN_WINDOW = 0.1


@dataclass(frozen=True, slots=True)
class KVBytes:
    """Bytes that one token takes in all layers of either kind."""

    whole: int
    window: int

    @staticmethod
    def of(config: ModelConfig, dtype: torch.dtype) -> KVBytes:
        """For a model whose layers keep what they compute in ``dtype``."""
        layer = KVPool.bytes_per_token(1, config.num_kv_heads, config.head_dim, dtype, config.latent)
        windows = sum(window is not None for window in config.windows)
        return KVBytes((config.num_layers - windows) * layer, windows * layer)

    @property
    def both(self) -> int:
        return self.whole + self.window


@dataclass(frozen=True, slots=True)
class Demand:
    """What the pools are for: ``rows`` requests of up to ``context`` tokens, ``step_tokens`` of prompts a step."""

    rows: int
    context: int
    step_tokens: int
    page: int


@dataclass(frozen=True, slots=True)
class KVSizes:
    """Tokens that the KV cache holds; ``window`` where layers with one have pages of their own."""

    tokens: int
    window: WindowSettings | None = None

    def bytes(self, each: KVBytes, page: int) -> int:
        """What the pools take."""
        if self.window is None:
            return self.tokens // page * page * each.both
        return self.tokens // page * page * each.whole + self.window.num_pages * page * each.window


def pages_apart(args: ServerArgs, config: ModelConfig) -> int | None:
    """The window of layers that are to have pages of their own; None: all layers share one kind of page."""
    windows = [window for window in config.windows if window is not None]
    apart = not (
        args.disable_hybrid_swa_memory or args.enable_hierarchical_cache or args.enable_deterministic_inference
    )
    return max(windows) if windows and apart else None


def sizes_for(tokens: int, window: int | None, ratio: float | None, demand: Demand) -> KVSizes:
    """Pools that hold ``tokens``; the window's is as ``ratio`` says."""
    return KVSizes(tokens) if window is None else _apart(tokens, _share(tokens, window, ratio, demand), window, demand)


def largest(room: int, each: KVBytes, window: int | None, ratio: float | None, demand: Demand) -> KVSizes:
    """The pools with the most tokens that fit in ``room`` bytes."""
    most = demand.rows * demand.context
    together = KVSizes(min(room // each.both, most))
    if window is None:
        return together

    def needed(tokens: int) -> int:
        return tokens * each.whole + _share(tokens, window, ratio, demand) * each.window

    tokens = bisect_right(range(most + 1), room, key=needed) - 1
    share = _share(tokens, window, ratio, demand)
    if tokens == most and ratio is None:  # there is no use for more: the rest is for cached prefixes
        share = max(share, min((room - most * each.whole) // each.window, most))
    found = _apart(tokens, share, window, demand)
    return found if found.window is not None and found.tokens > 0 else together


def _apart(tokens: int, share: int, window: int, demand: Demand) -> KVSizes:
    """A pool of ``share`` tokens for the window, if that is large enough, and smaller than the other."""
    pages = share // demand.page
    least = WindowSettings.least_pages(window, demand.step_tokens, demand.page)
    if not least <= pages < tokens // demand.page:
        return KVSizes(tokens)
    return KVSizes(tokens, WindowSettings(window, pages, demand.step_tokens))


def _share(tokens: int, window: int, ratio: float | None, demand: Demand) -> int:
    """How many tokens the window's pool holds beside ``tokens`` of the other; never falls as those grow."""
    if ratio is not None:
        return int(tokens * ratio)
    everyone = WindowSettings.least_pages(window, demand.step_tokens, demand.page, demand.rows) * demand.page
    return int(min(MOST_IN_WINDOW * tokens, max(everyone, LEAST_IN_WINDOW * tokens)))
