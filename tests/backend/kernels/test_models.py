"""Whole models on the kernels give the logits of ``transformers``; under the interpreter, in float32."""

import pytest
import torch

from backend.layers import attention, mla, mlp, moe, norm, routing
from backend.layers.kernels import experts
from backend.layers.kernels.few_experts import Cut, Cuts
from backend.layers.ops import triton_ops
from backend.layers.routing import Routing
from tests.backend.models.families import VARIANTS
from tests.backend.models.paged import Paged
from tests.backend.models.parity import sequences, worst_difference
from tests.backend.tiny_models import save_tiny

TOLERANCE = 1e-4
FAMILIES = ["qwen3", "gemma2", "phi3", "gpt-oss", "deepseek-v2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu runs models on the GPU")
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_reference(family, tmp_path, monkeypatch):
    for module in (attention, mla, mlp, moe, norm, routing):
        monkeypatch.setattr(module, "layer_ops", lambda device: triton_ops())
    monkeypatch.setattr(experts, "FEW", Cuts(Cut(128, 128, 1), Cut(128, 128, 1)))  # few programs: each takes its time
    folder = save_tiny(family, VARIANTS[family].make, tmp_path)
    rows = sequences([9, 2])
    assert worst_difference(folder, "mixed batches", rows, attention="triton") < TOLERANCE
    assert Paged(folder, attention="triton").model.captures


def test_experts_one_by_one_are_not_captured(tmp_path):
    folder = save_tiny("mixtral", VARIANTS["mixtral"].make, tmp_path)
    assert not Paged(folder).model.captures


@pytest.mark.parametrize("rule", [Routing(3, renormalise=True), Routing(2, renormalise=False, groups=4, top_groups=2)])
def test_routing_never_waits_for_the_device(rule):
    """Tensors without numbers: whoever asked for one would fail."""
    weights, ids = rule.choose(torch.empty(7, 8, device="meta"), None)
    assert weights.shape == ids.shape == (7, rule.top_k)
