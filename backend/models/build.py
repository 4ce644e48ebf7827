"""A model without weights yet, and what it will take in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from backend.cache.kv_pool import KVPool
from backend.loader.model_config import ModelConfig
from backend.models.base import CausalLM
from backend.models.registry import model_class


@dataclass(frozen=True, slots=True)
class Footprint:
    """Sizes in bytes, but for ``parameters``: how many numbers the weights are."""

    parameters: int
    weights: int
    kv_per_token: int


def empty_model(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> CausalLM:
    """The model of ``config``, its parameters allocated and not filled. ``ValueError`` for an unknown architecture."""
    with _default_dtype(dtype), device:
        return _kind(config)(config)


def _kind(config: ModelConfig) -> type[CausalLM]:
    if config.reference is None:
        return model_class(config.architecture)
    from backend.models.fallback.model import TransformersLM  # heavy, and rarely needed

    return TransformersLM


def footprint(config: ModelConfig, dtype: torch.dtype) -> Footprint:
    """What ``config`` takes in ``dtype``; allocates nothing."""
    parameters = list(empty_model(config, dtype, torch.device("meta")).parameters())
    return Footprint(
        parameters=sum(parameter.numel() for parameter in parameters),
        weights=sum(parameter.nbytes for parameter in parameters),
        kv_per_token=KVPool.bytes_per_token(
            config.num_layers, config.num_kv_heads, config.head_dim, dtype, config.latent
        ),
    )


def require_memory(needed: int, free: int, dtype: torch.dtype, device: torch.device) -> None:
    """``ValueError`` when weights of ``needed`` bytes do not fit in ``free`` bytes of ``device``."""
    if needed <= free:
        return
    name = str(dtype).removeprefix("torch.")
    smaller = "--dtype bfloat16 halves it; " if dtype is torch.float32 else ""
    raise ValueError(
        f"not enough memory for the weights: {size(needed)} needed in {name}, {size(free)} free on {device.type}; "
        f"{smaller}free memory or choose a smaller model with --model-path"
    )


def require_room(needed: int, free: int, device: torch.device) -> None:
    """``ValueError`` when keys and values of ``needed`` bytes do not fit in ``free`` bytes of ``device``."""
    if needed > free:
        raise ValueError(
            f"not enough memory for keys and values: {size(needed)} needed, {size(free)} free on {device.type}; "
            "lower --max-total-tokens, or leave it out"
        )


def size(count: int) -> str:
    """``count`` bytes for people: ``1.5 GiB``."""
    for unit, exponent in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << exponent:
            return f"{count / (1 << exponent):.1f} {unit}"
    return f"{count} bytes"


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
