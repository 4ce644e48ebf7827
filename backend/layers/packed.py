"""Matrix products in bfloat16 on the CPU, with weights in the order in which oneDNN reads them.

A plain matrix is put in that order anew for each product, which for a few rows takes as long as the product itself.
What is computed is the same.
"""

from __future__ import annotations

import platform

import torch
from torch import nn

from backend.layers.embedding import LMHead
from backend.layers.linear import Linear

TRIED = ("x86_64", "AMD64")  # where it was measured


def packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights of ``dtype`` on ``device`` gain from it."""
    known = device.type == "cpu" and dtype is torch.bfloat16 and platform.machine() in TRIED
    return known and torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linears(model: nn.Module) -> None:
    """Let every :class:`Linear` and :class:`LMHead` keep its weights packed; the plain ones are not kept.

    A head that shares the embedding's matrix gets a copy, as an embedding is looked up by rows.
    """
    for module in model.modules():
        if isinstance(module, LMHead) or (isinstance(module, Linear) and not module.lends_weight):
            packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), 1)
            module.weight = nn.Parameter(packed, requires_grad=False)
            module.product = _product


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out
