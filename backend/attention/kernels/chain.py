"""Kernels that start while the one before them ends (programmatic dependent launch, from Hopper on).

A chained kernel's programs may start as soon as all programs of the kernel before have passed :func:`after_previous`.
Every program calls it once, also one with nothing to do: a kernel that ended without waiting would let the one behind
it overtake. What a program reads before the call must be older than the kernel before: weights, and lists of the step.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl

HOPPER = (9, 0)


@triton.jit
def after_previous(CHAINED: tl.constexpr):
    """What the kernel before wrote is there, and the next one may start."""
    if CHAINED:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@cache
def chained(device: torch.device) -> dict[str, bool]:
    """What a launch of a kernel with a constant CHAINED is given for tensors on ``device``."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= HOPPER:
        return {"CHAINED": True, "launch_pdl": True}
    return {"CHAINED": False}
