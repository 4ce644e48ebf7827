"""One token for each row of probabilities: top-k, top-p, min-p, and the draw itself."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Protocol

import torch


class Draw(Protocol):
    def __call__(
        self,
        probabilities: torch.Tensor,
        top_k: torch.Tensor | None,
        top_p: torch.Tensor | None,
        min_p: torch.Tensor | None,
        at: torch.Tensor,
    ) -> torch.Tensor:
        """int64[R] for ``probabilities`` (float32 ``[R, vocab]``), by inverting their running sum at ``at`` in [0, 1).

        The sum goes along the tokens, or, in rows that top-k or top-p limits, from the likeliest down, equal ones in
        the order of the tokens: a row's draw never depends on the others. ``None``: no row has that limit.
        """


class DrawFromLogits(Protocol):
    def __call__(
        self, logits: torch.Tensor, temperature: torch.Tensor, hot: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        """The same for rows without limits, from logits (floating ``[R, vocab]``, not changed): int64[R].

        ``temperature`` is float32[R]; rows that are not ``hot`` (bool[R]) take their likeliest token.
        """


@cache
def draw_on(device: torch.device) -> Draw:
    """The fastest draw for tensors on ``device``."""
    if _has_kernels(device):
        from backend.runner.kernels.draw import draw as without_sorting

        return without_sorting
    return draw


@cache
def draw_from_logits_on(device: torch.device) -> DrawFromLogits | None:
    """A draw that needs no probabilities, where there is one."""
    if _has_kernels(device):
        from backend.runner.kernels.draw_logits import draw_from_logits

        return draw_from_logits
    return None


def _has_kernels(device: torch.device) -> bool:
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def draw(
    probabilities: torch.Tensor,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
    at: torch.Tensor,
) -> torch.Tensor:
    """See :class:`Draw`; with torch's operations."""
    drawn = _invert(_drop_unlikely(probabilities, min_p), at)
    if top_k is None and top_p is None:
        return drawn
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    limited = torch.zeros_like(at, dtype=torch.bool)
    if top_k is not None:
        ranks = torch.arange(ordered.shape[-1], device=ordered.device)
        ordered = ordered.masked_fill(ranks >= top_k[:, None], 0.0)
        limited |= top_k < ordered.shape[-1]
    if top_p is not None:
        # A token stays when the ones before it do not yet reach top_p of what top_k left.
        total = ordered.sum(dim=-1, keepdim=True)
        before = ordered.cumsum(dim=-1) - ordered
        beyond = (before >= top_p[:, None] * total) & (top_p < 1)[:, None]
        beyond[:, 0] = False
        ordered = ordered.masked_fill(beyond, 0.0)
        limited |= top_p < 1
    place = _invert(_drop_unlikely(ordered, min_p), at)
    return torch.where(limited, tokens.gather(-1, place[:, None])[:, 0], drawn)


def _drop_unlikely(probabilities: torch.Tensor, min_p: torch.Tensor | None) -> torch.Tensor:
    if min_p is None:
        return probabilities
    threshold = probabilities.amax(dim=-1, keepdim=True) * min_p[:, None]
    return probabilities.masked_fill(probabilities < threshold, 0.0)


def _invert(weights: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Index drawn from each row's unnormalised ``weights`` by inverting the cumulative sum at ``at`` in [0, 1)."""
    cumulative = weights.cumsum(dim=-1)
    # Strictly below the total, so that rounding never lands on a weight of zero past the last positive one.
    total = cumulative[:, -1]
    target = torch.minimum(at * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    return drawn.clamp_(max=weights.shape[-1] - 1)  # a row of zeros or NaN has no such place
