"""The kernel that copies pages between device and host, on the device's memory alone where there is no GPU."""

import pytest
import torch

from backend.cache.host_kernel import copy_pages


@pytest.mark.parametrize("shape", [(16, 3, 8), (1, 1, 3), (4, 1, 576)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_only_the_named_pages_change(device, dtype, shape):
    source = torch.randn(7, *shape).to(dtype).to(device)
    target = torch.randn(5, *shape).to(dtype).to(device)
    expected = target.clone()
    for read, written in ((6, 1), (2, 4)):
        expected[written] = source[read]
    copy_pages(source, torch.tensor([6, 2], device=device), target, torch.tensor([1, 4], device=device))
    assert torch.equal(target.view(torch.uint8), expected.view(torch.uint8))
