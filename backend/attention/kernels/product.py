"""A matrix product of two tiles."""

import torch
import triton
import triton.language as tl


@triton.jit
def product(a, b, sums, PRECISION: tl.constexpr):
    """``sums + a b``. Triton's interpreter has no bfloat16 products: "widened" computes them in float32."""
    if PRECISION == "widened":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), sums, input_precision="ieee")
    else:
        return tl.dot(a, b, sums, input_precision=PRECISION)


def precision(device: torch.device) -> str:
    """How :func:`product` computes for tensors on ``device``; float32 ones are never rounded."""
    return "ieee" if device.type == "cuda" else "widened"
