"""``act(gate) * up`` of a gated feed-forward block, where gate and up stand side by side."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained
from backend.layers.activation import activation

BLOCK = 1024


@triton.jit
def activate(x, ACT: tl.constexpr):
    """``ACT`` of float32 numbers, by the name that configurations give it."""
    if ACT == "silu":
        return x * tl.sigmoid(x)
    elif ACT == "gelu":
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACT == "gelu_pytorch_tanh":
        return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    else:
        tl.static_assert(ACT == "relu")
        return tl.maximum(x, 0.0)


@triton.jit
def _gate(x, out, stride, size, CHAINED: tl.constexpr, ACT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    dims = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = dims < size
    after_previous(CHAINED)
    gate = tl.load(x + row * stride + dims, mask=real, other=0.0).to(tl.float32)
    up = tl.load(x + row * stride + size + dims, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * size + dims, (activate(gate, ACT) * up).to(out.dtype.element_ty), mask=real)


def gate(act: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """See :class:`backend.layers.ops.LayerOps`."""
    activation(act)  # refuses an unknown one

    def gated(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        size = x.shape[-1] // 2
        out = torch.empty(*x.shape[:-1], size, dtype=x.dtype, device=x.device)
        grid = (len(rows), triton.cdiv(size, BLOCK))
        _gate[grid](rows, out, rows.stride(0), size, ACT=act, BLOCK=BLOCK, **chained(x.device))
        return out

    return gated
