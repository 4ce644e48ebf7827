"""Our side of the attention interface of ``transformers``: whoever computes the layers of the running pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface

from backend.attention.base import AttentionBackend, AttentionShape

NAME = "warmlane"


class LayerAttention(Protocol):
    """Computes one layer's attention of one row of tokens: tensors are ``[1, heads, T, size]``, the result
    ``[1, T, heads, value size]``.
    """

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        options: Mapping[str, Any],
    ) -> torch.Tensor: ...


# Not a keyword of the pass: some families do not hand theirs down to the attention.
_current: ContextVar[LayerAttention] = ContextVar("attention of the running pass")


class Unsupported(ValueError):
    """Why a model cannot be served; the text goes on from the model's name."""


def forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What ``transformers`` calls in each layer; the second result, attention weights, is never there."""
    return _current.get()(module, query, key, value, attention_mask, options), None


@contextmanager
def attending(attend: LayerAttention) -> Iterator[None]:
    """Within the block ``attend`` computes the layers of the models that this thread runs."""
    token = _current.set(attend)
    try:
        yield
    finally:
        _current.reset(token)


def register() -> None:
    """Make ``attn_implementation=NAME`` known to ``transformers``; any number of times."""
    AttentionInterface.register(NAME, forward)


class PagedLayers:
    """Hands each layer to an attention backend, with heads filled up with zeros to the size of the pool's."""

    def __init__(self, attention: AttentionBackend, shapes: Sequence[AttentionShape]) -> None:
        self._attention = attention
        self._shapes = shapes

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        layer = cast(int, module.layer_idx)
        size = self._shapes[layer].head_dim
        queries, keys, values = (_token_rows(tensor, size) for tensor in (query, key, value))
        attended = self._attention.attend(layer, queries, keys, values, options.get("s_aux"))
        return attended.unflatten(-1, (-1, size))[None, ..., : value.shape[-1]]


def _token_rows(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """``[1, heads, T, d]`` as ``[T, heads, size]``."""
    rows = tensor[0].transpose(0, 1)
    return F.pad(rows, (0, size - rows.shape[-1])) if rows.shape[-1] < size else rows.contiguous()
