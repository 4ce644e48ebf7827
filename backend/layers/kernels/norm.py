"""Root-mean-square normalisation of rows, and with it the addition that comes before."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained


@triton.jit
def _rms_norm(
    x,  # [rows, size]; becomes x + delta when ADDS
    delta,
    weight,  # [size]
    out,
    stride,
    delta_stride,
    size,
    eps,
    CHAINED: tl.constexpr,
    ADDS: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, BLOCK)
    real = dims < size
    factors = tl.load(weight + dims, mask=real, other=0.0).to(tl.float32) + OFFSET
    after_previous(CHAINED)
    numbers = tl.load(x + row * stride + dims, mask=real, other=0.0)
    if ADDS:
        more = tl.load(delta + row * delta_stride + dims, mask=real, other=0.0)
        numbers = (numbers.to(tl.float32) + more.to(tl.float32)).to(numbers.dtype)
        tl.store(x + row * stride + dims, numbers, mask=real)
    wide = numbers.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(wide * wide, 0) / size + eps)
    tl.store(out + row * size + dims, (wide * inverse * factors).to(out.dtype.element_ty), mask=real)


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, *, offset: bool = False, delta: torch.Tensor | None = None
) -> torch.Tensor:
    """See :class:`backend.layers.ops.LayerOps`."""
    size = x.shape[-1]
    rows = x.view(-1, size) if delta is not None else x.reshape(-1, size)
    added = rows if delta is None else delta.reshape(-1, size)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(size)
    _rms_norm[(len(rows),)](
        rows, added, weight, out, rows.stride(0), added.stride(0), size, eps,
        ADDS=delta is not None, OFFSET=1.0 if offset else 0.0, BLOCK=block, num_warps=min(max(block // 512, 1), 16),
        **chained(x.device),
    )  # fmt: skip
    return out
