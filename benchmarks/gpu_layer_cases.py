"""The other cases of ``benchmarks.gpu_kernels``: what layers do between matrix products, and sampling.

Sizes are those of Llama 3.1 8B, for a decode of 64 rows and a prompt of 8,192 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from backend.attention.base import KVTarget
from backend.layers.norm import RMSNorm
from backend.layers.ops import TORCH_OPS, LayerOps, triton_ops
from backend.layers.rotary import RotaryTables
from backend.runner.draw import DrawFromLogits
from backend.runner.draw import draw as draw_by_sorting
from backend.runner.kernels.draw import draw as draw_by_search
from backend.runner.kernels.draw_logits import draw_from_logits
from benchmarks.gpu_case import Case, Cases

DTYPE = torch.bfloat16
WIDTH = DTYPE.itemsize


def token_counts(device: torch.device) -> tuple[int, ...]:
    return (64, 8192) if device.type == "cuda" else (2,)


def norms(device: torch.device) -> Cases:
    """Add, and normalise the sum."""
    hidden = 4096 if device.type == "cuda" else 64
    for tokens in token_counts(device):
        for kernel, ops in (("triton", triton_ops()), ("torch", TORCH_OPS)):
            yield partial(_norm, kernel, ops, tokens, hidden, device)


def _norm(kernel: str, ops: LayerOps, tokens: int, hidden: int, device: torch.device) -> Case:
    x, delta = (torch.randn(tokens, hidden, device=device, dtype=DTYPE) for _ in range(2))
    weight = torch.randn(hidden, device=device, dtype=DTYPE)
    work = f"add, norm {tokens} x {hidden}"
    call = partial(ops.rms_norm, x, weight, 1e-5, offset=False, delta=delta * 1e-3)
    return Case(work, kernel, call, moved=4 * tokens * hidden * WIDTH, operations=0)


def gates(device: torch.device) -> Cases:
    inner = 14336 if device.type == "cuda" else 96
    for tokens in token_counts(device):
        for kernel, ops in (("triton", triton_ops()), ("torch", TORCH_OPS)):
            yield partial(_gate, kernel, ops, tokens, inner, device)


def _gate(kernel: str, ops: LayerOps, tokens: int, inner: int, device: torch.device) -> Case:
    x = torch.randn(tokens, 2 * inner, device=device, dtype=DTYPE)
    call = partial(ops.gate("silu"), x)
    return Case(f"silu, mul {tokens} x {inner}", kernel, call, moved=3 * tokens * inner * WIDTH, operations=0)


def rotations(device: torch.device) -> Cases:
    """Norms of the heads, rotation, and storing keys and values."""
    heads, kv_heads, size = (32, 8, 128) if device.type == "cuda" else (4, 2, 16)
    for tokens in token_counts(device):
        for kernel in ("triton", "torch"):
            yield partial(_rotation, kernel, tokens, heads, kv_heads, size, device)


def _rotation(kernel: str, tokens: int, heads: int, kv_heads: int, size: int, device: torch.device) -> Case:
    projected = torch.randn(tokens, heads + 2 * kv_heads, size, device=device, dtype=DTYPE)
    angles = torch.randn(tokens, 1, size // 2, device=device)
    rotary = RotaryTables(angles.cos().to(DTYPE), angles.sin().to(DTYPE))
    pools = [torch.zeros(tokens, 1, kv_heads, size, device=device, dtype=DTYPE) for _ in range(2)]
    locations = torch.randperm(tokens, device=device)
    norms = RMSNorm(size, 1e-6).to(device, DTYPE), RMSNorm(size, 1e-6).to(device, DTYPE)
    for norm in norms:
        norm.weight.normal_()
    target = KVTarget(*pools, locations)

    def separately() -> None:
        query, key, value = projected.split((heads, kv_heads, kv_heads), dim=1)
        rms_norm = TORCH_OPS.rms_norm
        normed = [
            rms_norm(x, norm.weight, norm.eps, offset=False, delta=None)
            for x, norm in zip((query, key), norms, strict=True)
        ]
        turned = rotary.rotate(torch.cat(normed, dim=1))
        for pool, numbers in zip(pools, (turned[:, heads:], value), strict=True):
            pool.flatten(0, 1).index_copy_(0, locations, numbers)

    fused = triton_ops().rotate_and_store
    if fused is None:
        raise ValueError("no such kernel")
    call = partial(fused, projected, rotary, target, norms) if kernel == "triton" else separately
    moved = tokens * size * WIDTH * (2 * (heads + 2 * kv_heads) + kv_heads)
    return Case(f"norms, rotate, store {tokens} x {heads}+{kv_heads}", kernel, call, moved=moved, operations=0)


def sampling(device: torch.device) -> Cases:
    """From probabilities to tokens, with top-k 50 and top-p 0.9, and without limits; the latter from logits as well."""
    vocab = 151936 if device.type == "cuda" else 100
    for rows in (1, 64, 256) if device.type == "cuda" else (2,):
        for limited in (True, False):
            for kernel, draw in (("triton", draw_by_search), ("torch", draw_by_sorting)):
                yield partial(_sampling, kernel, draw, rows, vocab, limited, device)
        for kernel, from_logits in (("triton", draw_from_logits), ("torch", _draw_by_softmax)):
            yield partial(_from_logits, kernel, from_logits, rows, vocab, device)


def _sampling(
    kernel: str, draw: Callable[..., torch.Tensor], rows: int, vocab: int, limited: bool, device: torch.device
) -> Case:
    probabilities = (torch.randn(rows, vocab, device=device) * 3).softmax(-1)
    at = torch.rand(rows, device=device)
    limits = torch.full((rows,), 50, device=device), torch.full((rows,), 0.9, device=device)
    call = partial(draw, probabilities, *(limits if limited else (None, None)), None, at)
    work = f"draw {rows} x {vocab}{', top-k, top-p' if limited else ''}"
    return Case(work, kernel, call, moved=probabilities.nbytes, operations=0, captures=kernel == "triton")


def _draw_by_softmax(
    logits: torch.Tensor, temperature: torch.Tensor, hot: torch.Tensor, at: torch.Tensor
) -> torch.Tensor:
    probabilities = torch.softmax(logits.float() / temperature[:, None], dim=-1)
    return torch.where(hot, draw_by_sorting(probabilities, None, None, None, at), logits.argmax(-1))


def _from_logits(kernel: str, draw: DrawFromLogits, rows: int, vocab: int, device: torch.device) -> Case:
    logits = (torch.randn(rows, vocab, device=device) * 3).to(DTYPE)
    at = torch.rand(rows, device=device)
    call = partial(draw, logits, torch.ones_like(at), at < 2, at)
    work = f"draw {rows} x {vocab}, from logits"
    return Case(work, kernel, call, moved=logits.nbytes, operations=0, captures=kernel == "triton")
