"""Every family on the GPU: bfloat16 against float32 with each attention backend, and pages of windows apart or not."""

import pytest
import torch

from benchmarks.gpu_model_errors import model_errors
from benchmarks.gpu_models import WITH_WINDOWS, tokens_alike
from benchmarks.model_shapes import SMALL


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_near_those_in_float32(name):
    found = list(model_errors(name, SMALL[name], torch.device("cuda")))
    assert len(found) >= 2  # torch's attention and our own at least
    assert [error for error in found if not error.passed] == []


@pytest.mark.parametrize("name", WITH_WINDOWS)
def test_tokens_do_not_depend_on_pages_of_windows(name):
    assert tokens_alike(name)["passed"]
