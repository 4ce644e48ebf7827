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


@triton.jit
def as_multiplied(queries, pool):
    """``queries`` in the dtype that keys and values of ``pool`` are multiplied in.

    8 bits become float16 in half an instruction, and bfloat16 in several of which one runs at an eighth of the speed.
    """
    if pool.dtype.element_ty.primitive_bitwidth == 8 and queries.dtype == tl.bfloat16:
        return tl.clamp(queries.to(tl.float32), -65504.0, 65504.0).to(tl.float16)
    else:
        return queries


def precision(device: torch.device) -> str:
    """How :func:`product` computes for tensors on ``device``; float32 ones are never rounded."""
    return "ieee" if device.type == "cuda" else "widened"
