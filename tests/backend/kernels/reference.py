"""What the kernels should compute, in float64 on the CPU, and how far off an answer is.

Triton's interpreter cuts numbers off where a GPU rounds them to bfloat16: what is exact there is close here.
"""

import torch

TOLERANCE = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 1.5e-2}


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, of the whole tensor; NaN stays NaN."""
    assert found.shape == expected.shape
    return float((found.double().cpu() - expected).norm() / expected.norm())


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None) -> None:
    limit = TOLERANCE[found.dtype] if tolerance is None else tolerance
    assert distance(found, expected) <= limit  # also false for NaN


def attention(query, keys, values, shape, sinks=None):
    """One row: ``query`` ``[Q, H, D]`` are the last of the tokens that ``keys`` ``[K, KH, D]`` stand for."""
    group = shape.num_heads // shape.num_kv_heads
    queries = query.double().cpu().transpose(0, 1)
    keys, values = (x.double().cpu().transpose(0, 1).repeat_interleave(group, 0) for x in (keys, values))
    scores = queries @ keys.transpose(1, 2) * shape.scale
    if shape.soft_cap is not None:
        scores = shape.soft_cap * torch.tanh(scores / shape.soft_cap)
    at = torch.arange(keys.shape[1] - queries.shape[1], keys.shape[1])[:, None]
    key_at = torch.arange(keys.shape[1])
    hidden = key_at > at
    if shape.window is not None:
        hidden |= key_at <= at - shape.window
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        column = sinks.double().cpu()[:, None, None].expand(-1, scores.shape[1], 1)
        scores = torch.cat((scores, column), dim=-1)
    weights = scores.softmax(-1)[..., : keys.shape[1]]
    return (weights @ values).transpose(0, 1).flatten(1)
