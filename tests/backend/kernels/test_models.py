"""Whole models on the kernels give the logits of ``transformers``; under the interpreter, in float32."""

import pytest
import torch

from backend.layers import attention, mlp, moe, norm
from backend.layers.ops import triton_ops
from tests.backend.models.families import VARIANTS
from tests.backend.models.parity import sequences, worst_difference
from tests.backend.tiny_models import save_tiny

TOLERANCE = 1e-4
FAMILIES = ["qwen3", "gemma2", "phi3", "gpt-oss", "deepseek-v2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu runs models on the GPU")
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_reference(family, tmp_path, monkeypatch):
    for module in (attention, mlp, moe, norm):
        monkeypatch.setattr(module, "layer_ops", lambda device: triton_ops())
    folder = save_tiny(family, VARIANTS[family].make, tmp_path)
    rows = sequences([9, 2])
    assert worst_difference(folder, "mixed batches", rows, attention="triton") < TOLERANCE
