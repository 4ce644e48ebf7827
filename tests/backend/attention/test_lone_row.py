"""The only row of a step, read where it lies, against the same row attended to as a longer one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.attention.base import AttentionShape, StepLayout
from backend.attention.row_by_row import RowByRow
from backend.attention.torch_sdpa import TorchSDPA
from backend.cache import KVPool

HEADS, KV_HEADS, SIZE, PAGES = 6, 2, 8, 12

SHAPES = {
    "plain": AttentionShape(HEADS, KV_HEADS, SIZE, 0.3),
    "window": AttentionShape(HEADS, KV_HEADS, SIZE, 0.3, window=5),
    "soft cap": AttentionShape(HEADS, KV_HEADS, SIZE, 0.3, soft_cap=2.0),
    "sinks": AttentionShape(HEADS, KV_HEADS, SIZE, 0.3, window=9, has_sinks=True),
    "latent": AttentionShape(HEADS, 1, SIZE, 0.3, value_dim=5),
}


def filled_pool(shape: AttentionShape, page_size: int) -> KVPool:
    pool = KVPool(
        num_layers=1,
        num_pages=PAGES,
        page_size=page_size,
        kv_heads=shape.num_kv_heads,
        head_dim=SIZE,
        dtype=torch.float32,
        device=torch.device("cpu"),
        latent=shape.value_dim,
    )
    for stored in pool.storage(0):
        stored.normal_(generator=torch.Generator().manual_seed(page_size))
    return pool


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data())
def test_a_lone_row_equals_a_longer_one(name, data):
    shape, page_size = SHAPES[name], data.draw(st.sampled_from([1, 4, 16]))
    count = data.draw(st.integers(1, PAGES))
    kv_len = data.draw(st.integers((count - 1) * page_size + 1, count * page_size))
    first = data.draw(st.integers(1, PAGES - count + 1))
    adjacent = list(range(first, first + count))
    pages = data.draw(st.just(adjacent) | st.permutations(range(1, PAGES + 1)).map(lambda order: order[:count]))
    location = pages[(kv_len - 1) // page_size] * page_size + (kv_len - 1) % page_size
    layout = StepLayout(
        query_lens=torch.ones(1, dtype=torch.int32),
        kv_lens=torch.tensor([kv_len], dtype=torch.int32),
        page_table=torch.tensor([[*pages, 0]], dtype=torch.int32),
        locations=torch.tensor([location]),
    )
    random = torch.Generator().manual_seed(kv_len)
    query, key = (torch.randn(1, heads, SIZE, generator=random) for heads in (HEADS, shape.num_kv_heads))
    value = key[..., : shape.value_dim] if shape.value_dim else torch.randn(key.shape, generator=random)
    sinks = torch.randn(HEADS, generator=random) if shape.has_sinks else None
    answers = []
    for kind in (TorchSDPA, RowByRow):
        attention = kind(filled_pool(shape, page_size), [shape])
        attention.plan(layout)
        answers.append(attention.attend(0, query, key, value, sinks))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-5, atol=1e-6)
