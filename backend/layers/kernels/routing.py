"""Scores, the choice of experts and their weights, all of a token in one program."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained
from backend.layers.routing import SIGMOID, SOFTMAX, Routing


@triton.jit
def choose_experts(
    logits,  # [T, count]
    bias,  # [count]
    weights,  # float32[T, TOP_K]
    ids,  # int32[T, TOP_K]
    count,
    stride,
    scale,
    CHAINED: tl.constexpr,
    TOP_K: tl.constexpr,
    CHOICES: tl.constexpr,  # the power of two that holds TOP_K
    SOFT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RENORMALISE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0)
    expert = tl.arange(0, BLOCK)
    real = expert < count
    after_previous(CHAINED)
    numbers = tl.load(logits + token * stride + expert, mask=real, other=float("-inf")).to(tl.float32)
    if SOFT:
        scores = tl.exp(numbers - tl.max(numbers, 0))
        scores = scores / tl.sum(scores, 0)
    else:
        scores = tl.sigmoid(numbers)
    choice = scores
    if HAS_BIAS:
        choice += tl.load(bias + expert, mask=real, other=0.0)
    choice = tl.where(real, choice, float("-inf"))
    place = tl.arange(0, CHOICES)
    chosen = tl.zeros([CHOICES], tl.int32)
    weight = tl.zeros([CHOICES], tl.float32)
    for i in tl.static_range(TOP_K):
        best = tl.argmax(choice, 0)
        found = expert == best
        weight = tl.where(place == i, tl.sum(tl.where(found, scores, 0.0), 0), weight)
        chosen = tl.where(place == i, best.to(tl.int32), chosen)
        choice = tl.where(found, float("-inf"), choice)
    if RENORMALISE:
        weight = weight / (tl.sum(weight, 0) + 1e-20)
    kept = place < TOP_K
    tl.store(weights + token * TOP_K + place, weight * scale, mask=kept)
    # Of numbers that are none the largest may stand outside: what is chosen is an expert nevertheless.
    tl.store(ids + token * TOP_K + place, tl.minimum(chosen, count - 1), mask=kept)


def choose(logits: torch.Tensor, rule: Routing, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """See :class:`backend.layers.ops.LayerOps`."""
    if rule.groups > 1 or rule.scores not in (SOFTMAX, SIGMOID):
        return rule.choose(logits, bias)
    tokens, count = logits.shape
    weights = torch.empty(tokens, rule.top_k, dtype=torch.float32, device=logits.device)
    ids = torch.empty(tokens, rule.top_k, dtype=torch.int32, device=logits.device)
    choose_experts[(tokens,)](
        logits, logits if bias is None else bias, weights, ids, count, logits.stride(0), rule.scale,
        TOP_K=rule.top_k, CHOICES=triton.next_power_of_2(rule.top_k), SOFT=rule.scores is SOFTMAX,
        HAS_BIAS=bias is not None, RENORMALISE=rule.renormalise, BLOCK=triton.next_power_of_2(count),
        num_warps=1, **chained(logits.device),
    )  # fmt: skip
    return weights, ids
